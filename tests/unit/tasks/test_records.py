"""The user's own data: every way to name it, every way to score it, every error before a model loads."""

import json
import sys

import pytest

from fastslow.errors import ConfigError, FastslowError, InfrastructureError, TaskError
from fastslow.tasks.base import ScoringFailure, check_splits
from fastslow.tasks.records import RecordsTask
from fastslow.types import Score

CUT = {"train": "rest", "validation": 3, "test": 2}
MODULE = """
def half(completion, record):
    return 0.5, f"{record['question']} is hard."

def broken(completion, answer):
    raise RuntimeError("no sandbox")

def matches(completions, answer, **kwargs):
    texts = [c if isinstance(c, str) else c[0]["content"] for c in completions]
    return [1.0 if text == str(right) else 0.0 for text, right in zip(texts, answer)]

def sees(prompts, completions, level, **kwargs):
    assert set(kwargs) == {"question", "answer"}, kwargs
    return [1.0 if isinstance(p, list) == isinstance(c, list) and l == 1 else 0.0
            for p, c, l in zip(prompts, completions, level)]

def raises(completions, **kwargs):
    raise ConnectionError("refused")

async def waits(completions, **kwargs):
    return [None if c == "skip" else 2.0 for c in completions]

number = 3
"""


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_rewards.py").write_text(MODULE)
    yield
    sys.modules.pop("my_rewards", None)


def write(name, rows):
    with open(name, "w", encoding="utf-8") as file:
        file.writelines((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    return name


def rows(first, last, **more):
    return [{"question": f"What is {i} + 1?", "answer": i + 1, **more} for i in range(first, last)]


def make(data, **options):
    return RecordsTask(data, **{"prompt": "question", "answer": "answer", "scorer": "number", **options})


def ids(task, split):
    return [problem.id for problem in task.problems(split)]


def test_one_file_is_cut_into_disjoint_parts():
    data = write("all.jsonl", rows(0, 12))
    task = make(data, splits=CUT)
    assert check_splits(task) == {"train": 7, "validation": 3, "test": 2}
    # Problems keep the file's order, and more records or another training size leave the test split alone.
    numbers = [problem.data["record"]["answer"] for problem in task.problems("train")]
    assert numbers == sorted(numbers)
    smaller = make(data, splits={**CUT, "train": 2})
    assert (ids(smaller, "test"), ids(smaller, "validation")) == (ids(task, "test"), ids(task, "validation"))
    assert ids(make(data, splits=CUT, seed=1), "train") != ids(task, "train")


def test_ids_do_not_depend_on_the_order_of_the_file():
    forward = make(write("a.jsonl", rows(0, 12)), splits=CUT)
    backward = make(write("b.jsonl", rows(0, 12)[::-1]), splits=CUT)
    for split in CUT:
        assert set(ids(forward, split)) == set(ids(backward, split))


def test_a_file_for_each_split_and_an_id_column():
    files = {"train": write("t.jsonl", rows(0, 3)), "validation": write("v.jsonl", ["", *rows(5, 6)])}
    task = make(files, id="answer")
    assert {split: ids(task, split) for split in CUT} == {
        "train": ["records-1", "records-2", "records-3"],
        "validation": ["records-6"],
        "test": [],
    }
    assert task.problems("train")[0].messages == ({"role": "user", "content": "What is 0 + 1?"},)


def test_a_column_says_which_kind_a_problem_is_of():
    task = make(write("t.jsonl", rows(0, 3)), splits={"train": "rest"}, kind="answer")
    assert sorted(problem.kind for problem in task.problems("train")) == ["1", "2", "3"]
    with pytest.raises(TaskError, match=r"has no column 'subject' \(task\.options\.kind\)"):
        make(write("t.jsonl", rows(0, 3)), splits={"train": "rest"}, kind="subject")


def test_a_chat_as_prompt():
    chat = [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}]
    task = make({"train": write("t.jsonl", [{"question": chat, "answer": 1}])})
    (problem,) = task.problems("train")
    assert problem.messages == tuple(chat)


def test_hugging_face_datasets_saved_to_disk_and_local(tmp_path):
    datasets = pytest.importorskip("datasets")
    train, test = datasets.Dataset.from_list(rows(0, 8)), datasets.Dataset.from_list(rows(20, 24))
    datasets.DatasetDict({"train": train, "dev": test}).save_to_disk("saved")
    named = make("saved", splits={"train": "train", "validation": "dev"})
    assert check_splits(named) == {"train": 8, "validation": 4, "test": 0}
    cut = make("saved", splits={"train": 5, "validation": "rest"}, cut_from="train")
    assert check_splits(cut) == {"train": 5, "validation": 3, "test": 0}
    train.save_to_disk("single")
    assert check_splits(make("single", splits={"train": 5, "validation": 3}))["train"] == 5
    (tmp_path / "local").mkdir()
    write("local/train.jsonl", rows(0, 8))
    sliced = make("local", splits={"train": "train[:75%]", "validation": "train[75%:]"})
    assert check_splits(sliced) == {"train": 6, "validation": 2, "test": 0}
    assert sliced.score(sliced.problems("train")[0], "1").reward == 1.0
    with pytest.raises(FastslowError, match="'saved' has no split 'tset': it has train, dev"):
        make("saved", splits={"train": "train", "validation": "tset"})
    with pytest.raises(FastslowError, match=r"dataset 'no/such', split 'train', cannot be loaded"):
        datasets.config.HF_HUB_OFFLINE = True
        make("no/such", splits=CUT)


def test_built_in_scorers_with_a_format():
    task = make(write("a.jsonl", rows(0, 8)), splits=CUT, answer_format="boxed")
    problem = task.problems("train")[0]
    answer = problem.data["record"]["answer"]
    assert task.score(problem, f"\\boxed{{{answer}.0}}").reward == 1.0
    assert task.score(problem, str(answer)) == Score(0.0, "Put the final answer in \\boxed{}.")


def test_a_function_of_the_users_own_and_a_broken_one():
    data = write("a.jsonl", rows(0, 8))
    task = make(data, splits=CUT, scorer="my_rewards:half")
    problem = task.problems("train")[0]
    assert task.score_batch([problem], ["x"]) == [Score(0.5, f"{problem.data['record']['question']} is hard.")]
    broken = make(data, splits=CUT, scorer="my_rewards:broken")
    assert broken.score_batch([problem] * 2, ["x", "y"]) == [ScoringFailure("RuntimeError: no sandbox")] * 2


def test_trl_reward_functions_on_texts():
    functions = ["my_rewards:matches", "my_rewards:sees", "my_rewards:waits"]
    task = make(
        write("a.jsonl", rows(0, 8, level=1)),
        splits=CUT, scorer=None, reward_functions=functions, reward_weights=[1.0, 1.0, 0.5], reward_range=[0, 3],
    )  # fmt: skip
    problems = task.problems("train")[:2]
    right = str(problems[0].data["record"]["answer"])
    # 1 + 1 + 0.5 * 2 = 3, that is 1; and 0 + 1 (the third does not apply), that is 1/3.
    first, second = task.score_batch(problems, [right, "skip"])
    assert first == Score(1.0, "matches: 1\nsees: 1\nwaits: 2")
    assert second.reward == pytest.approx(1 / 3)
    assert second.feedback.splitlines() == [
        "matches: 0", "sees: 1", f"The reference answer is {problems[1].data['record']['answer']}."
    ]  # fmt: skip
    assert task.score(problems[0], right) == first


def test_trl_reward_functions_on_chats():
    chats = [{"question": [{"role": "user", "content": str(i)}], "answer": i, "level": 1} for i in range(8)]
    functions = ["my_rewards:matches", "my_rewards:sees"]
    task = make(write("a.jsonl", chats), splits=CUT, scorer=None, reward_functions=functions, reward_weights=[0.5, 0.5])
    problem = task.problems("train")[0]
    assert task.score(problem, str(problem.data["record"]["answer"])).reward == 1.0


def test_a_broken_reward_function_masks():
    task = make(write("a.jsonl", rows(0, 8)), splits=CUT, scorer=None, reward_functions=["my_rewards:raises"])
    problem = task.problems("train")[0]
    assert task.score_batch([problem], ["x"]) == [ScoringFailure("ConnectionError: refused")]
    with pytest.raises(InfrastructureError, match="ConnectionError: refused"):
        task.score(problem, "x")


REPEATED = [*rows(0, 8), rows(2, 3)[0]]


def test_repeated_questions_can_be_dropped():
    assert sum(check_splits(make(write("a.jsonl", REPEATED), splits=CUT, drop_duplicates=True)).values()) == 8
    files = {"train": write("t.jsonl", rows(0, 8)), "validation": write("v.jsonl", rows(7, 9))}
    task = make(files, drop_duplicates=True)
    assert check_splits(task) == {"train": 7, "validation": 2, "test": 0}


def test_repeated_questions_with_another_answer_are_counted(caplog):
    make(write("a.jsonl", REPEATED), splits=CUT, drop_duplicates=True)
    assert not caplog.text
    data = write("a.jsonl", [*rows(0, 8), {"question": "What is 2 + 1?", "answer": 4}])
    make(data, splits=CUT, drop_duplicates=True)
    assert "drop_duplicates: 1 repeated questions have another answer than the first, which is kept" in caplog.text
    assert "a.jsonl, line 9 and a.jsonl, line 3" in caplog.text


@pytest.mark.parametrize(
    ("lines", "options", "message"),
    [
        (None, {}, "data: file 'a.jsonl' does not exist"),
        ([], {}, "data: 'a.jsonl' holds no records"),
        (['{"question": "a", "answer": 1}', "{oops"], {}, "a.jsonl, line 2: is not JSON"),
        (["[1]"], {}, "a.jsonl, line 1: holds list: one object a line is needed"),
        ([{"q": "a", "answer": 1}], {}, r"line 1: has no column 'question' \(task.options.prompt\): the columns are q, "
            r"answer"),
        ([{"question": "a"}], {}, r"line 1: has no column 'answer' \(task.options.answer\)"),
        (rows(0, 8), {"id": "key"}, r"has no column 'key' \(task.options.id\)"),
        ([{"question": 3, "answer": 1}], {}, "line 1: column 'question' must hold a text or a list of chat messages"),
        ([{"question": [{"role": "me", "content": "x"}], "answer": 1}], {}, "line 1: column 'question' must hold"),
        ([{"question": [{"role": "assistant", "content": "x"}], "answer": 1}], {}, "ends with an assistant message"),
        ([*rows(0, 8), {"question": [{"role": "user", "content": "x"}], "answer": 1}], {}, "holds texts and chats"),
        ([{"question": "a", "answer": "none"}], {}, "line 1: the answer 'none' holds no number"),
        ([{"question": "a \ud800", "answer": 1}], {}, "line 1: column 'question' holds half of a character"),
        (
            [{"question": [{"role": "user", "content": "\udc00"}], "answer": 1}],
            {},
            "'question' holds half of a character",
        ),
        ([{"question": "a", "answer": 1, "key": "\ud800"}], {"id": "key"}, "column 'key' holds half of a character"),
        ([{"question": "a", "answer": 1, "key": "\ud800"}], {"kind": "key"}, "column 'key' holds half of a character"),
        (REPEATED, {}, "line 9: repeats the question of a.jsonl, line 3.*drop_duplicates"),
        (
            [*rows(0, 8), {"question": "x", "answer": 3}],
            {"id": "answer", "drop_duplicates": True},
            "line 9: repeats the id '3' of a.jsonl, line 3",
        ),
        (rows(0, 5), {}, "there are only 5 different records"),
        (rows(0, 8), {"splits": None}, "splits: is missing. Cut them from the data, for example"),
        (rows(0, 8), {"splits": {"dev": 3}}, "splits: 'dev' is not a split: take train, validation, test"),
        (rows(0, 8), {"splits": {"train": "train"}}, "is one file, which has no named splits"),
        (rows(0, 8), {"splits": {"train": "train", "test": 1}}, "mixes sizes with names"),
        (rows(0, 8), {"splits": {"train": "rest", "test": "rest"}}, "only one split can take the rest"),
        (rows(0, 8), {"splits": {"train": "rest", "test": -1}}, "test = -1: a size is a number from 0 on"),
        (rows(0, 8), {"answer": None}, "answer: is missing: scorer 'number' needs the column"),
        (rows(0, 8), {"scorer": "exakt"}, "scorer: 'exakt' is unknown"),
        (rows(0, 8), {"scorer": None}, "give either scorer or reward_functions"),
        (rows(0, 8), {"reward_functions": ["my_rewards:matches"]}, "give either scorer or reward_functions"),
        (rows(0, 8), {"reward_range": [0.0, 2.0]}, "belong to reward_functions, not to scorer"),
        (rows(0, 8), {"answer_format": "xml"}, "answer_format: 'xml' is unknown"),
        (rows(0, 8), {"answer_format": "tags", "scorer": "json"}, "scorer 'json' has a format of its own"),
        (rows(0, 8), {"answer_format": "tags", "scorer": "my_rewards:half"}, "answer_format: belongs to the scorers"),
        (rows(0, 8), {"scorer": "my_rewards:nothing"}, "scorer: 'my_rewards:nothing' cannot be imported"),
        (rows(0, 8), {"scorer": "my_rewards:number"}, "scorer: 'my_rewards:number' is 3, not a function"),
        (
            rows(0, 8),
            {"scorer": None, "reward_functions": ["my_rewards:sees"]},
            "'my_rewards:sees' asks for 'level', the records have answer, question",
        ),
    ],
)  # fmt: skip
def test_one_clear_error_before_any_model_loads(lines, options, message):
    if lines is not None:
        write("a.jsonl", lines)
    with pytest.raises(FastslowError, match=message):
        make("a.jsonl", **{"splits": CUT, **options})


def test_splits_and_data_must_go_together():
    files = {"train": write("t.jsonl", rows(0, 3)), "validation": write("v.jsonl", rows(2, 6))}
    with pytest.raises(ConfigError, match="data already names a file for each split: remove splits"):
        make(files, splits=CUT)
    with pytest.raises(ConfigError, match="data: 'dev' is not a split"):
        make({"train": "t.jsonl", "dev": "v.jsonl"})
    with pytest.raises(FastslowError, match=r"t.jsonl, line 3: repeats the question of v.jsonl, line 1"):
        make(files)


def question(number, right="C", **changes):
    """A record in the schema of SciKnowEval."""
    choices = {"text": [f"it is {number + i}" for i in range(4)], "label": ["A", "B", "C", "D"]}
    record = {"question": f"What is {number} + 2?", "choices": choices, "answerKey": right, "domain": "Physics"}
    return {**record, "type": "mcq-4-choices", "details": {"level": "L3"}, **changes}


CHOICES = {"choices": "choices", "answer": "answerKey", "scorer": "choice", "answer_format": "tags", "splits": CUT}


def test_options_stand_under_the_question_and_the_label_becomes_a_letter():
    numbered = {"text": ["one", "two"], "label": ["1", "2"]}
    data = write(
        "a.jsonl", [*map(question, range(6)), question(7, "2", choices=numbered), question(8, 1, choices=["x", "y"])]
    )
    task = make(data, **CHOICES)
    problems = {p.messages[0]["content"]: p for split in CUT for p in task.problems(split)}
    first = problems["What is 0 + 2?\n\nA. it is 0\nB. it is 1\nC. it is 2\nD. it is 3"]
    assert task.score(first, "<think><answer>A</answer></think><answer> (c) </answer>") == Score(1.0, "Correct.")
    assert task.score(first, "<answer>A</answer>") == Score(0.0, "The answer was A, the correct one is C.")
    assert task.score(first, "C") == Score(0.0, "Write the final answer between <answer> and </answer>.")
    assert task.score(first, "<answer>A and C</answer>") == Score(
        0.0, "Answer with the letter of the right option alone."
    )
    for text in ("What is 7 + 2?\n\nA. one\nB. two", "What is 8 + 2?\n\nA. x\nB. y"):
        assert task.score(problems[text], "<answer>B</answer>").reward == 1.0
        assert task.score(problems[text], "<answer>A</answer>").reward == 0.0


def test_where_chooses_records_by_column_and_field():
    rows = [*map(question, range(8)), question(8, domain="Biology"), question(9, details={"level": "L1"})]
    data = write("a.jsonl", rows)
    task = make(data, **CHOICES, where={"domain": "Physics", "details.level": "L3"})
    assert sum(check_splits(task).values()) == 8
    files = {
        "train": write("t.jsonl", rows),
        "validation": write("v.jsonl", [question(20), question(21, domain="Biology")]),
    }
    task = make(files, **{**CHOICES, "splits": None}, where={"domain": "Physics"})
    assert check_splits(task) == {"train": 9, "validation": 1, "test": 0}
    with pytest.raises(
        FastslowError, match=r"where: no record has 'area': the columns are question, choices, answerKey"
    ):
        make(data, **CHOICES, where={"area": "Physics"})
    with pytest.raises(FastslowError, match=r"where: no record is left where details\.level is 'L9'"):
        make(data, **CHOICES, where={"details.level": "L9"})


BROKEN = [
    (question(9, choices={"text": ["a", "b", "c"], "label": ["A", "B"]}), r"has 3 texts for the labels \['A', 'B'\]"),
    (question(9, choices={"text": ["a", "b"], "label": ["A", "A"]}), "has 2 texts for the labels"),
    (question(9, choices={"text": ["a", " "], "label": ["A", "B"]}), "must hold 2 to 26 texts"),
    (question(9, choices=None), "must hold 2 to 26 texts, not None"),
    (question(9, "E"), r"the answer 'E' is none of the labels \['A', 'B', 'C', 'D'\]"),
    (question(9, None), "the answer None is none of the labels"),
    ({"question": "x", "answerKey": "A"}, "has no column 'choices'"),
]


@pytest.mark.parametrize(("record", "message"), BROKEN)
def test_options_that_do_not_fit_are_an_error_or_left_out(record, message, caplog):
    data = write("a.jsonl", [record, *map(question, range(6))])
    with pytest.raises(FastslowError, match=rf"a\.jsonl, line 1: .*{message}"):
        make(data, **CHOICES)
    assert sum(check_splits(make(data, **CHOICES, skip_broken=True)).values()) == 6
    assert "task.options.skip_broken: 1 of 7 records left out: a.jsonl, line 1:" in caplog.text
    with pytest.raises(FastslowError, match=rf"a\.jsonl, line 1: .*{message}"):
        make(write("a.jsonl", [record]), **CHOICES, skip_broken=True)


def test_choices_need_an_answer():
    with pytest.raises(ConfigError, match="answer: is missing: choices need the column with the right one"):
        make(write("a.jsonl", [question(0)]), **{**CHOICES, "answer": None})


def test_the_revision_and_subset_of_a_hub_dataset(monkeypatch):
    datasets = pytest.importorskip("datasets")
    asked = []

    def load(*args, **kwargs):
        asked.append((args, kwargs))
        return datasets.Dataset.from_list(rows(0, 8))

    monkeypatch.setattr(datasets, "load_dataset", load)
    make("org/name", splits=CUT, subset="v2", revision="refs/convert/parquet", cut_from="test")
    assert asked == [(("org/name", "v2"), {"split": "test", "revision": "refs/convert/parquet"})]


ONE = {"question": "a", "answer": 1, "key": "k", "subject": "s"}


@pytest.mark.parametrize("scorer", ["exact", "number", "json", "choice", "math"])
def test_a_missing_answer_is_not_the_text_null(scorer):
    good = {"exact": "x", "number": 1, "json": 1, "choice": "A", "math": "1"}[scorer]
    data = write("a.jsonl", [{"question": "a", "answer": good}, {"question": "b", "answer": None}])
    with pytest.raises(TaskError, match=r"a\.jsonl, line 2: the answer None is missing.*\(column 'answer'\)"):
        make(data, splits=CUT, scorer=scorer)
    write("a.jsonl", ['{"question": "b", "answer": NaN}'])
    with pytest.raises(TaskError, match=r"a\.jsonl, line 1: the answer nan .*\(column 'answer'\)"):
        make(data, splits=CUT, scorer=scorer)


@pytest.mark.parametrize(("option", "column"), [("id", "key"), ("kind", "subject")])
@pytest.mark.parametrize("value", ["null", "NaN", "Infinity", '""', '" "', '["x"]', '{"a": 1}'])
def test_a_missing_id_or_kind_is_not_the_text_none(option, column, value):
    line = json.dumps({**ONE, column: "HERE"}).replace('"HERE"', value)
    data = write("a.jsonl", [json.dumps({**ONE, "question": "b", "key": "l"}), line])
    with pytest.raises(
        TaskError, match=rf"line 2: column '{column}' \(task\.options\.{option}\) holds .*: a text or a number"
    ):
        make(data, splits={"train": "rest"}, **{option: column})


def test_a_missing_answer_is_left_out_of_the_feedback_of_reward_functions():
    data = write("a.jsonl", [{"question": str(i), "answer": None} for i in range(8)])
    task = make(data, splits=CUT, scorer=None, reward_functions=["my_rewards:matches"])
    assert task.score(task.problems("train")[0], "x") == Score(0.0, "matches: 0")


def test_options_stand_under_the_last_message_of_a_chat():
    chat = [{"role": "system", "content": "S"}, {"role": "user", "content": "Which?"}]
    data = write("a.jsonl", [question(0, question=chat)])
    task = make(data, **{**CHOICES, "splits": {"train": "rest"}})
    (problem,) = task.problems("train")
    assert problem.messages == (
        chat[0],
        {"role": "user", "content": "Which?\n\nA. it is 0\nB. it is 1\nC. it is 2\nD. it is 3"},
    )
    assert task.score(problem, "<answer>C</answer>").reward == 1.0
    write("a.jsonl", [question(0, question=[chat[1], {"role": "tool", "content": "42"}])])
    with pytest.raises(
        TaskError, match="line 1: column 'question' ends with a message of role 'tool': options can stand"
    ):
        make(data, **CHOICES)


def user(content, **more):
    return {"role": "user", "content": content, **more}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "line 1: column 'question' must hold a text or a list of chat messages"),
        ("", "line 1: column 'question' must hold a text"),
        (" \n", "line 1: column 'question' must hold a text"),
        (True, "line 1: column 'question' must hold a text"),
        ([], "line 1: column 'question' must hold a text"),
        ([{"role": ["user"], "content": "x"}], "line 1: column 'question' must hold a text"),
        ([{"role": None, "content": "x"}], "line 1: column 'question' must hold a text"),
        ([user(None)], "line 1: column 'question' must hold a text"),
        ([user("x"), user(" ")], "line 1: column 'question', message 2: the user says nothing"),
        (
            [{"role": "system", "content": "x"}],
            "line 1: column 'question' holds a chat without a message of the user's",
        ),
        (
            [
                user("x"),
                {"role": "assistant", "content": "", "tool_calls": [{"id": 1}]},
                {"role": "tool", "content": "y"},
            ],
            "line 1: column 'question', message 2: has tool_calls, which would be lost",
        ),
    ],
)
@pytest.mark.parametrize("choices", [None, "choices"])
def test_a_question_of_no_use_is_refused_with_row_and_column(value, message, choices):
    record = {"question": value, "answer": "A" if choices else 1, "choices": ["x", "y"]}
    options = {"choices": choices, "scorer": "choice"} if choices else {}
    with pytest.raises(TaskError, match=message):
        make(write("a.jsonl", [record]), splits=CUT, **options)


@pytest.mark.parametrize(
    ("choices", "right", "message"),
    [
        ({"text": ["a", "b"], "label": [1, 2]}, 1, r"must have a list of texts as labels, not \[1, 2\]"),
        ({"text": ["a", "b"], "label": "AB"}, "A", "must have a list of texts as labels, not 'AB'"),
        ({"text": ["a", "b"], "label": [["A"], ["B"]]}, "A", "must have a list of texts as labels"),
        (["4", "5", "4 "], 0, "holds the right option '4' twice"),
        (["4", "5"], True, "the answer True is none of the labels"),
        (["4", None], 0, "must hold 2 to 26 texts"),
    ],
)
def test_options_that_are_silently_something_else(choices, right, message):
    with pytest.raises(TaskError, match=rf"a\.jsonl, line 1: .*{message}"):
        make(write("a.jsonl", [question(0, right, choices=choices)]), **CHOICES)
    # A wrong option may come twice.
    twice = question(0, 2, choices=["4", "4", "5"])
    assert make(write("a.jsonl", [twice]), **{**CHOICES, "splits": {"train": "rest"}}).problems("train")


@pytest.mark.parametrize(
    ("lines", "options", "message"),
    [
        (['{"question": "a", "answer": 1, "answer": 2}'], {}, "line 1: is not JSON: the key 'answer' stands twice"),
        (['{"question": "a", "answer": {"x": 1, "x": 2}}'], {}, "line 1: is not JSON: the key 'x' stands twice"),
        ([{"question": "a", "answer": ["4"]}], {}, r"line 1: the answer \['4'\] is not one value"),
        ([{"question": "a", "answer": True}], {}, "line 1: the answer True holds no number"),
        (rows(0, 8), {"splits": {"train": True}}, "splits: train = True: a size is a number"),
        (
            rows(0, 8, completions="x"),
            {"scorer": None, "reward_functions": ["my_rewards:matches"]},
            "the records have a column 'completions', under which functions get something else",
        ),
        (
            rows(0, 8),
            {"scorer": None, "reward_functions": ["my_rewards:matches", "my_rewards:matches"]},
            "reward_functions: names 'my_rewards:matches' twice",
        ),
        (
            rows(0, 8),
            {"scorer": None, "reward_functions": ["my_rewards:matches"], "reward_weights": [float("nan")]},
            "reward_weights: nan is not a finite number",
        ),
        (
            rows(0, 8),
            {"scorer": None, "reward_functions": ["my_rewards:matches"], "reward_range": [0.0, float("inf")]},
            "both finite",
        ),
    ],
)
def test_data_and_options_that_are_silently_something_else(lines, options, message):
    with pytest.raises(FastslowError, match=message):
        make(write("a.jsonl", lines), **{"splits": CUT, **options})


def test_a_file_that_is_not_utf8(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"question": "\xff", "answer": 1}\n')
    with pytest.raises(FastslowError, match=r"'a\.jsonl' is not UTF-8 text"):
        make("a.jsonl", splits=CUT)
