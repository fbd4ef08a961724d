"""The page: nothing in the data can leave its block, nothing is loaded, and it stays small."""

import base64
import hashlib
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from fastslow.cli.main import main
from fastslow.report import runs
from fastslow.report.collect import collect
from fastslow.report.page import LIBRARY, asset, encode, render
from fastslow.report.samples import read_samples
from fastslow.report.thin import LARGEST, evenly, fit
from fastslow.runs.reader import Run

from report_runs import HOSTILE, SEED, candidate, make_run, result_line, sample, write_lines


def data_of(page: str) -> dict[str, Any]:
    (block,) = re.findall(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)
    found: dict[str, Any] = json.loads(block)
    return found


def hostile_run(path: Path) -> Path:
    return make_run(
        path,
        samples={1: [sample(HOSTILE, feedback=HOSTILE, problem=HOSTILE)]},
        candidates=[
            candidate("aaaa", None, {"system": HOSTILE}, feedback=[HOSTILE], reason=HOSTILE, scores={HOSTILE: 1.0})
        ],
        task={"name": "lab", "options": {"world": "amber", "note": HOSTILE.replace("\ud800", "")}},
    )


def test_hostile_text_stays_in_the_data_block(tmp_path: Path) -> None:
    page = render(fit(collect([hostile_run(tmp_path / "run")])))
    assert page.count("<script") - asset(LIBRARY).count("<script") == 3
    assert "window.attacked" not in re.sub(r'<script id="data".*?</script>', "", page, flags=re.DOTALL)
    assert "onerror" not in page.replace(encode(data_of(page)), "").replace(asset(LIBRARY), "")
    text = data_of(page)["runs"][0]["samples"][0][3]
    assert text.startswith('</script><script>window.attacked = "script"; alert(1)</script><!-- <img')
    assert "␛[31mred␇" in text
    assert "\x1b" not in page
    assert "{{data}}" in text


def test_json_in_the_page_cannot_end_its_element() -> None:
    text = encode({"</script>": "<!-- & \u2028\u2029 >"})
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == {"</script>": "<!-- & \u2028\u2029 >"}


@pytest.mark.parametrize(("live", "connect"), [(False, "'none'"), (True, "'self'")])
def test_the_policy_allows_the_pages_own_scripts_and_no_network(tmp_path: Path, live: bool, connect: str) -> None:
    page = render(fit(collect([make_run(tmp_path / "run")])), live=live)
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert rules["default-src"] == "'none'"
    assert rules["script-src"].split() == [f"'sha256-{digest}'" for digest in digests]
    assert rules["connect-src"] == connect
    assert not re.search(r"<(?:link|img|iframe)\b|<script[^>]+src=|@import|url\(", page.replace(asset(LIBRARY), ""))


def test_the_vendored_library_is_the_one_that_its_note_names() -> None:
    digest = hashlib.sha256(asset(LIBRARY).encode()).hexdigest()
    assert digest in asset("vendor/README.md")
    assert "Apache License" in asset("vendor/LICENSE-echarts")
    assert "</script" not in asset(LIBRARY)


def test_no_script_writes_markup() -> None:
    scripts = Path(__file__).parents[3] / "src/fastslow/report/assets/js"
    for script in scripts.glob("*.js"):
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", script.read_text()
        )


def test_a_large_run_stays_small_and_says_what_it_left_out(tmp_path: Path) -> None:
    samples = {step: [sample(f"{step} {at} " + "<&>" * 1000) for at in range(16)] for step in range(1, 61)}
    candidates = [
        candidate("aaaa", None, SEED),
        candidate("bbbb", "aaaa", {"system": "b"}),
        *(candidate(f"h{n}", "bbbb", {"system": "x" * 9000}, accepted=False, scores={}) for n in range(800)),
    ]
    data = fit(collect([make_run(tmp_path / "run", samples=samples, candidates=candidates)]))
    (run,) = data["runs"]
    assert len(render(data).encode()) < LARGEST
    assert run["left_out"]["samples"] == 960 - len(run["samples"])
    assert 100 < len(run["samples"]) < 960
    steps = [row[0] for row in run["samples"]]
    assert (min(steps), max(steps)) == (1, 60)
    assert max(after - before for before, after in itertools.pairwise(steps)) <= 2
    assert run["left_out"]["prompts"] > 0
    assert {"aaaa", "bbbb", "cccc"} <= {node["hash"] for node in run["prompts"]}


def test_of_far_too_many_prompts_only_some_are_made_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    real = runs._node

    def node(member: Any, *rest: Any) -> Any:
        made.append(member.hash)
        return real(member, *rest)

    monkeypatch.setattr(runs, "_node", node)
    monkeypatch.setattr(runs, "BUDGET", 100_000)
    candidates = [
        candidate("aaaa", None, SEED),
        candidate("bbbb", "aaaa", {"system": "b"}),
        *(candidate(f"h{n}", "bbbb", {"system": "x" * 900}, accepted=n % 2 == 0, cycle=n) for n in range(1000)),
    ]
    data = collect([make_run(tmp_path / "run", candidates=candidates)])
    (run,) = data["runs"]
    assert 20 < len(made) < 60 and {"aaaa", "bbbb", "cccc"} <= set(made)
    assert run["left_out"]["prompts"] + len(made) == len(candidates) + 1  # cccc was never searched for
    assert run["left_out"]["cycles"] == 1000 - len(run["grids"]) and run["grids"][-1]["cycle"] == 999
    (thinner,) = fit(data, budget=len(encode(data)) - 5_000)["runs"]
    assert len(thinner["prompts"]) < len(made)
    assert thinner["left_out"]["prompts"] + len(thinner["prompts"]) == len(candidates) + 1


def test_of_far_too_many_rollouts_every_second_or_fourth_step_is_read(tmp_path: Path) -> None:
    lines = {
        step: [sample(f"{step} {at} " + "x" * 500, components={"system": "s"}) for at in range(4)]
        for step in range(1, 101)
    }
    run = Run(make_run(tmp_path / "run", samples=lines))
    found = read_samples(run, (), most=70_000)
    steps = list(dict.fromkeys(row[0] for row in found.rows))
    assert steps == [*range(1, 98, 4), 100]
    assert len(found.rows) + found.left_out == 400 and found.size <= 70_000
    assert list(found.texts) == ["bbbb"] and read_samples(run, {"bbbb"}, most=70_000).texts == {}
    whole = read_samples(run, (), most=10**9)
    assert len(whole.rows) == 400 and whole.left_out == 0


def test_scores_are_thinned_by_cycle_and_the_last_one_stays(tmp_path: Path) -> None:
    scores = {f"problem-{n}": 1.0 for n in range(200)}
    candidates = [candidate("bbbb", None, SEED, cycle=cycle, scores=scores) for cycle in range(1, 41)]
    data = fit(collect([make_run(tmp_path / "run", candidates=candidates)]), budget=60_000)
    (run,) = data["runs"]
    assert run["grids"][-1]["cycle"] == 40
    assert run["left_out"]["cycles"] == 40 - len(run["grids"])
    assert len(encode(data)) <= 60_000


def test_a_small_run_is_whole(tmp_path: Path) -> None:
    assert fit(collect([make_run(tmp_path / "run")]))["runs"][0]["left_out"] == {}


def test_evenly_keeps_both_ends() -> None:
    assert evenly(range(10), 4) == [0, 3, 6, 9]
    assert evenly([1, 2], 5) == [1, 2]
    assert evenly([1, 2], 0) == []
    assert evenly([1, 2, 3], 1) == [3]


def test_the_command_writes_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, results, out = make_run(tmp_path / "run"), tmp_path / "r.jsonl", tmp_path / "new" / "page.html"
    write_lines(results, [result_line("amber", "fst", 0, [0.0, 0.9])])
    assert main(["report", str(run), str(results), "--output", str(out)]) == 0
    assert "open it in a browser" in capsys.readouterr().out
    data = data_of(out.read_text(encoding="utf-8"))
    assert [panel["title"] for panel in data["panels"]] == ["this run", "r.jsonl · r · amber"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no"], "does not exist"),
        (["run", "--output", "."], "is a directory"),
        (["run", "--port", "80"], "add --live"),
        (["run", "--live", "--output", "x.html"], "leave --output or --live out"),
        (["run", "--live", "--port", "99999"], "is no port"),
    ],
)
def test_the_command_says_what_is_wrong(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    make_run(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    assert main(["report", *arguments]) == 2
    assert message in capsys.readouterr().err
