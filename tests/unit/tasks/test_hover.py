"""HoVer: the index of pages, which claims are asked, and what a query is worth."""

import json
import logging
import tarfile
from pathlib import Path

import numpy as np
import pytest

from fastslow.errors import ConfigError, FastslowError, InfrastructureError
from fastslow.tasks.base import ScoringFailure, check_splits
from fastslow.tasks.bm25 import PageIndex, read_pages
from fastslow.tasks.formats import FORMATS
from fastslow.tasks.hover import LENGTH_RULE, MISSING_RULE, HoverTask
from fastslow.types import Score

TITLES = ["Alba Nord", "Brezza & Figli", "Café Lumière", "Dorn River", "Esk Castle", "Fell Bridge", "Gorm Prize"]
PAGES = [
    {"title": title, "text": [f"{title} is an entry.", f" It concerns subject{number} alone."]}
    for number, title in enumerate(TITLES)
]


def claim(number: int, titles: list[str], **changes: object) -> dict:
    facts = [{"key": title, "value": line} for title in titles for line in (0, 1)]
    text = f"Claim number{number} concerns subject0."
    return {"claim": text, "supporting_facts": facts, "num_hops": 3, "hpqa_id": f"q{number}", "label": 1, **changes}


def write(path, lines) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return str(path)


@pytest.fixture
def files(tmp_path):
    """Options for a task on seven pages and six claims of three hops, each of them found by its words' numbers."""
    claims = [claim(number, ["Alba Nord", "Dorn River", "Café Lumière"]) for number in range(6)]
    return {
        "claims": write(tmp_path / "claims.jsonl", claims),
        "corpus": write(tmp_path / "pages.jsonl", PAGES),
        "index": str(tmp_path / "made" / "index"),
        "splits": {"train": "rest", "validation": 1, "test": 1},
        "pages": 2,
    }


def judged(task: HoverTask, completion: str) -> Score:
    return task.score(task.problems("train")[0], completion)


def test_a_query_that_finds_what_is_missing_scores_1(files):
    task = HoverTask(**files)
    assert check_splits(task) == {"train": 4, "validation": 1, "test": 1}
    problem = task.problems("train")[0]
    assert problem.data == {
        "gold": ["Alba Nord", "Dorn River", "Café Lumière"],
        "missing": ["Dorn River", "Café Lumière"],
    }
    question = problem.messages[0]["content"]
    assert question.startswith("Claim: Claim number")
    assert "[1] Alba Nord | Alba Nord is an entry. It concerns subject0 alone." in question
    assert "Dorn" not in question
    assert judged(task, "<think>hm</think><answer>subject2 and subject3</answer>") == Score(1.0, "Correct.")


def test_a_query_that_finds_a_part_says_what_is_missing(files):
    score = judged(HoverTask(**files), "<answer>the Dorn river</answer>")
    assert score.reward == 0.0
    rule, found, query = score.feedback.splitlines()
    assert rule == MISSING_RULE
    assert found == "Found: Alba Nord, Dorn River. Still missing: Café Lumière."
    assert query == "The query 'the Dorn river' retrieved: Dorn River."
    assert judged(HoverTask(**files, partial=True), "<answer>the Dorn river</answer>").reward == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("completion", "rule"),
    [
        ("", FORMATS["tags"].rule),
        ("subject2 subject3", FORMATS["tags"].rule),
        ("<think><answer>subject2 subject3</answer></think>", FORMATS["tags"].rule),
        ("<answer> </answer>", FORMATS["tags"].rule),
        ("<answer>\ud800</answer>", FORMATS["tags"].rule),
        ("<answer>" + "subject2 subject3 " * 33 + "</answer>", LENGTH_RULE),
        ("<answer>" + "x" * 5000 + "</answer>", LENGTH_RULE),
        ("<answer>zzzz \0 ) OR 1=1 {}</answer>", MISSING_RULE),
        ("<answer>the of and</answer>", MISSING_RULE),
    ],
)
def test_malformed_and_hostile_queries_score_0_and_the_rule_comes_first(files, completion, rule):
    score = judged(HoverTask(**files), completion)
    assert score.reward == 0.0
    assert score.feedback.splitlines()[0] == rule


def test_a_broken_index_masks_the_queries_and_nothing_else(files, monkeypatch):
    task = HoverTask(**files)
    problems = task.problems("train")[:2]

    def breaks(self, queries, k):
        raise OSError("the disk is gone")

    monkeypatch.setattr(PageIndex, "search", breaks)
    failure, score = task.score_batch(problems, ["<answer>subject2</answer>", "no query"])
    assert failure == ScoringFailure("OSError: the disk is gone")
    assert score == Score(0.0, FORMATS["tags"].rule)
    with pytest.raises(InfrastructureError, match="the disk is gone"):
        task.score(problems[0], "<answer>subject2</answer>")


def test_titles_are_compared_without_case_accents_encoding_and_escapes(files, tmp_path):
    pages = [
        {**page, "title": page["title"].upper().replace("&", "&amp;").replace("\u00c9", "E\u0301")} for page in PAGES
    ]
    files["corpus"] = write(tmp_path / "upper.jsonl", pages)
    gold = ["Alba Nord", "Brezza & Figli", "Café Lumière"]
    files["claims"] = write(tmp_path / "c.jsonl", [claim(number, gold) for number in range(4)])
    assert judged(HoverTask(**files), "<answer>subject1 subject2</answer>").reward == 1.0


def test_which_claims_are_asked(files, tmp_path):
    far = ["Alba Nord", "Esk Castle", "Gorm Prize"]
    claims = [
        *(claim(number, far) for number in range(4)),
        claim(4, far, num_hops=2),
        claim(5, far, hpqa_id="q0"),
        claim(0, far, hpqa_id="q6"),
        claim(7, ["Alba Nord"]),  # its first hop finds everything
    ]
    files["claims"] = write(tmp_path / "c.jsonl", claims)
    task = HoverTask(**files)
    asked = [p.messages[0]["content"] for split in ("train", "validation", "test") for p in task.problems(split)]
    assert sorted(text.split(" concerns")[0] for text in asked) == [f"Claim: Claim number{n}" for n in range(4)]


def test_facts_may_have_the_form_of_the_releases_json(files, tmp_path):
    facts = [["Alba Nord", 0], ["Dorn River", 1], ["Dorn River", 2]]
    files["claims"] = write(tmp_path / "c.jsonl", [claim(n, [], supporting_facts=facts) for n in range(4)])
    assert HoverTask(**files).problems("train")[0].data["gold"] == ["Alba Nord", "Dorn River"]


def test_a_dataset_in_the_schema_of_the_hub(files, tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "id": datasets.Value("int32"),
            "uid": datasets.Value("string"),
            "claim": datasets.Value("string"),
            "supporting_facts": datasets.List({"key": datasets.Value("string"), "value": datasets.Value("int32")}),
            "label": datasets.ClassLabel(names=["NOT_SUPPORTED", "SUPPORTED"]),
            "num_hops": datasets.Value("int32"),
            "hpqa_id": datasets.Value("string"),
        }
    )
    rows = [{"id": n, "uid": str(n), **claim(n, ["Alba Nord", "Dorn River", "Esk Castle"])} for n in range(5)]
    (tmp_path / "hub").mkdir()
    datasets.Dataset.from_list(rows, features=features).to_parquet(tmp_path / "hub" / "train-00000-of-00001.parquet")
    task = HoverTask(**{**files, "claims": str(tmp_path / "hub")})
    assert check_splits(task) == {"train": 3, "validation": 1, "test": 1}
    assert judged(task, "<answer>subject3 subject4</answer>").reward == 1.0


def test_the_index_is_made_once_and_holds_no_pickle(files, monkeypatch):
    task = HoverTask(**files)
    made = {path.name: path.read_bytes() for path in Path(files["index"]).iterdir()}
    for name, content in made.items():
        assert name.endswith((".npy", ".json", ".jsonl")), name
        if name.endswith(".npy"):
            np.load(Path(files["index"]) / name, allow_pickle=False)
        for text in content.decode().splitlines() if name.endswith(".jsonl") else [content] * name.endswith(".json"):
            json.loads(text)
    assert [path.name for path in Path(files["index"]).parent.iterdir()] == ["index"]

    def never(*args):
        raise AssertionError("the corpus is read again")

    monkeypatch.setattr("fastslow.tasks.bm25.read_pages", never)
    monkeypatch.setattr(PageIndex, "_make", never)
    again = HoverTask(**files)
    assert [p.id for p in again.problems("train")] == [p.id for p in task.problems("train")]
    assert judged(again, "<answer>subject2 subject3</answer>").reward == 1.0


def test_making_an_index_says_nothing(files, capsys, caplog):
    before = list(logging.getLogger().handlers)
    HoverTask(**files)
    assert (capsys.readouterr(), caplog.records) == (("", ""), [])
    assert logging.getLogger().handlers == before


def test_search_gives_the_best_first_and_nothing_without_a_common_word(files):
    index = PageIndex(files["corpus"], files["index"])
    assert [index[n].title for n in index.search(["Bridges of Fell, subject5"], 3)[0]] == ["Fell Bridge"]
    assert index.search(["nothing here", "subject1 subject1 subject4"], 9)[0] == []
    assert index.search(["subject1 subject1 subject4"], 9) == [[1, 4]]
    assert index.search([], 3) == []
    assert len(index) == 7


def test_a_corpus_in_an_archive_and_on_the_hub(files, tmp_path, monkeypatch):
    archive = tmp_path / "pages.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        (tmp_path / "README").write_text("not pages")
        tar.add(tmp_path / "README", "wiki/README")
        tar.add(files["corpus"], "wiki/pages.jsonl")
    pages = list(read_pages(str(archive)))
    assert pages == list(read_pages(files["corpus"]))
    assert [page.title for page in pages] == TITLES
    asked = []

    def download(*args):
        asked.append(args)
        return str(archive)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert list(read_pages("hub:dspy/cache/wiki.abstracts.2017.tar.gz")) == pages
    assert asked == [("dspy/cache", "wiki.abstracts.2017.tar.gz")]
    archive.write_bytes(archive.read_bytes()[:100])
    with pytest.raises(FastslowError, match=r"pages.tar.gz' is no whole .tar.gz"):
        list(read_pages(str(archive)))


def test_a_hub_that_cannot_be_reached(monkeypatch):
    def download(*args):
        raise ConnectionError("offline")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with pytest.raises(FastslowError, match=r"cannot be downloaded: offline. Or download the file and give its path"):
        list(read_pages("hub:a/b/c.tar.gz"))
    with pytest.raises(ConfigError, match="write it as hub:OWNER/REPOSITORY/FILE"):
        list(read_pages("hub:a/b"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"corpus": "no.jsonl"}, r"task\.options\.corpus: file 'no\.jsonl' does not exist"),
        ({"hops": 5}, r"task\.options\.hops: no claim has 5 hops"),
        ({"pages": 0}, r"task\.options\.pages: 0"),
        ({"splits": {"train": "train"}}, "is one file, which has no named splits"),
        ({"splits": {"train": "rest", "test": 9}}, "there are only 6 different records"),
    ],
)
def test_one_clear_error_before_any_model_loads(files, change, message):
    with pytest.raises(FastslowError, match=message):
        HoverTask(**{**files, **change})


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{"title": "A"}], r"line 1: a page is \{title: text, text: text or list of texts\}: KeyError: 'text'"),
        ([PAGES[0], {"title": "A", "text": [1]}], "line 2: a page is"),
        ([{"title": "", "text": ""}], "holds no words"),
        ([], "holds no words"),
    ],
)
def test_a_corpus_of_no_use_leaves_nothing_behind(files, tmp_path, lines, message):
    files["corpus"] = write(tmp_path / "bad.jsonl", lines)
    with pytest.raises(FastslowError, match=message):
        HoverTask(**files)
    assert list(Path(files["index"]).parent.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"supporting_facts": []}, "has no supporting facts: HoVer's test split has none"),
        ({"claim": None}, "claim must hold a text, not None"),
        ({"claim": " "}, "claim must hold a text, not ' '"),
        ({"hpqa_id": None}, "hpqa_id must hold a text, not None"),
        ({"supporting_facts": 3}, r"supporting_facts must hold \{key: title, value: sentence\}, not 3"),
        ({"supporting_facts": [{"title": "A"}]}, "supporting_facts must hold"),
    ],
)
def test_records_of_no_use_are_named(files, tmp_path, change, message):
    files["claims"] = write(tmp_path / "c.jsonl", [claim(0, ["Alba Nord"], **change)])
    with pytest.raises(FastslowError, match=rf"c\.jsonl, line 1: {message}"):
        HoverTask(**files)
    files["claims"] = write(tmp_path / "c.jsonl", [{"claim": "x"}])
    with pytest.raises(FastslowError, match="line 1: has no 'supporting_facts'"):
        HoverTask(**files)


def test_the_index_of_another_corpus_and_a_damaged_one_are_refused(files, tmp_path):
    HoverTask(**files)
    other = write(tmp_path / "other.jsonl", PAGES)
    with pytest.raises(FastslowError, match=r"index' was made with .*pages\.jsonl.*, wanted is .*other\.jsonl"):
        HoverTask(**{**files, "corpus": other})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(FastslowError, match="holds other files: name a new directory"):
        HoverTask(**{**files, "index": str(tmp_path / "full")})
    (Path(files["index"]) / "vocab.index.json").write_text("{")
    with pytest.raises(FastslowError, match=r"is damaged: .* Delete it to make it anew"):
        HoverTask(**files)


@pytest.mark.parametrize("package", ["bm25s", "Stemmer"])
def test_the_missing_package_is_named_before_anything_is_read(files, monkeypatch, package):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(ConfigError, match=rf"{package} is not installed: pip install 'fastslow\[hover\]'"):
        HoverTask(**{**files, "claims": "does-not-exist.jsonl"})
