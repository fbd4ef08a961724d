"""What every task must keep to, whatever it asks: one suite over all built-in tasks and some generators."""

import json

import pytest

from fastslow.tasks.base import SPLITS, ScoringFailure, Task, check_splits
from fastslow.tasks.registry import build_task
from fastslow.tasks.settings import TaskConfig
from fastslow.testing.scorers import RUBBISH
from fastslow.testing.tasks import check_task
from fastslow.types import Problem, Score

SIZES = {"train": 8, "validation": 3, "test": 3}
CUT = {"splits": SIZES, "prompt": "question", "answer": "answer"}
GENERATORS = [
    "chain_sum",
    "gcd",
    "letter_counting",
    "spiral_matrix",
    "prime_factorization",
    "countdown",
    "word_sorting",
    "maze",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Data files for the tasks that read one."""
    folder = tmp_path_factory.mktemp("data")
    pairs = [
        {
            "task_description": f"Add {i}.",
            "input_output_spec": "x",
            "code_sample": f"x + {i}",
            "input": {"x": i},
            "output": 2 * i,
        }
        for i in range(20)
    ]
    records = [{"question": f"{i} + 1?", "answer": str(i + 1)} for i in range(20)]
    chats = [
        {"question": [{"role": "system", "content": "Own."}, {"role": "user", "content": f"{i}?"}], "answer": str(i)}
        for i in range(20)
    ]
    pages = [{"title": f"Page {i}", "text": [f"About topic{i}."]} for i in range(20)]
    claims = [
        {
            "claim": f"C{i} of topic0",
            "supporting_facts": [["Page 0", 0], [f"Page {i}", 0]],
            "num_hops": 3,
            "hpqa_id": str(i),
        }
        for i in range(1, 18)
    ]
    files = {"pairs": pairs, "records": records, "chats": chats, "pages": pages, "claims": claims}
    for name, lines in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "contract_rewards.py").write_text(
        "def right(completions, answer, **kwargs):\n"
        "    texts = [c if isinstance(c, str) else c[0]['content'] for c in completions]\n"
        "    return [float(text == a) for text, a in zip(texts, answer)]\n"
    )
    return folder


def config(case: str, data) -> TaskConfig:
    files = {"codeio": {"pairs": str(data / "pairs.jsonl"), **SIZES}, "star_graph": {"d": 3, "p": 3, "n": 12, **SIZES}}
    if case == "hover":
        places = {"corpus": str(data / "pages.jsonl"), "index": str(data / "index")}
        return TaskConfig(name=case, options={"claims": str(data / "claims.jsonl"), "splits": SIZES, **places})
    if case in files:
        return TaskConfig(name=case, options=files[case])
    if case.startswith("records"):
        _, source, scorer = case.split("/")
        judge = {"reward_functions": ["contract_rewards:right"]} if scorer == "trl" else {"scorer": scorer}
        return TaskConfig(name="records", options={"data": str(data / f"{source}.jsonl"), **CUT, **judge})
    return TaskConfig(name=case, options=SIZES)


CASES = [
    "star_graph",
    "tool_protocol",
    "guess",
    "search",
    "codeio",
    "hover",
    *(f"records/records/{scorer}" for scorer in ("exact", "number", "json", "math", "trl")),
    "records/chats/exact",
    "records/chats/trl",
    *(f"reasoning_gym:{generator}" for generator in GENERATORS),
]


def gold(case: str, problem: Problem) -> str:
    if case == "star_graph":
        return "<think>Let me see.</think>\\boxed{" + ", ".join(map(str, problem.data["path"])) + "}"
    if case in ("tool_protocol", "guess", "search"):  # a lucky first turn
        return str(problem.data["number" if case == "guess" else "answer"])
    if case == "codeio":
        return f"```json\n{json.dumps(problem.data['output'])}\n```"
    if case == "hover":
        return f"<answer>{problem.data['missing'][0].replace('Page ', 'topic')}</answer>"
    if case.startswith("reasoning_gym"):
        return str(problem.data["entry"]["answer"])
    answer = problem.data["record"]["answer"]
    return f"\\boxed{{{answer}}}" if case.endswith("math") else answer


@pytest.fixture(scope="module", params=CASES)
def case(request, data) -> tuple[str, Task, Task]:
    """A task, made twice."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(data)
        first, second = (build_task(config(request.param, data)) for _ in range(2))
        yield request.param, first, second


def everything(task: Task) -> list[Problem]:
    return [problem for split in SPLITS for problem in task.problems(split)]


def test_splits_have_the_sizes_asked_for_and_share_neither_ids_nor_questions(case):
    _, task, _ = case
    assert check_splits(task) == SIZES
    questions = [json.dumps(problem.messages) for problem in everything(task)]
    assert len(set(questions)) == len(questions) == 14


def test_a_second_construction_gives_the_same_problems(case):
    _, task, again = case
    assert [(p.id, p.messages) for p in everything(task)] == [(p.id, p.messages) for p in everything(again)]
    assert list(task.problems("train")) == list(task.problems("train"))


def test_the_right_answer_scores_1(case):
    name, task, _ = case
    problems = everything(task)
    scores = task.score_batch(problems, [gold(name, problem) for problem in problems])
    assert [score.reward for score in scores] == [1.0] * len(problems)


@pytest.mark.parametrize("rubbish", RUBBISH, ids=lambda text: ascii(text[:12]))
def test_rubbish_scores_0_with_feedback_and_is_never_a_failure(case, rubbish):
    _, task, _ = case
    problems = list(task.problems("train"))
    for score in task.score_batch(problems, [rubbish] * len(problems)):
        assert isinstance(score, Score)
        assert score.reward == 0.0
        assert score.feedback.strip()


def test_the_answer_of_another_problem_has_its_reward_in_0_to_1(case):
    name, task, _ = case
    problems = everything(task)
    completions = [gold(name, problem) for problem in problems[1:] + problems[:1]]
    for score in task.score_batch(problems, completions):
        assert not isinstance(score, ScoringFailure)
        assert 0.0 <= score.reward <= 1.0
        assert score.feedback


def test_one_completion_is_scored_as_in_a_batch(case):
    name, task, _ = case
    problem = task.problems("validation")[0]
    for completion in (gold(name, problem), "rubbish"):
        assert task.score_batch([problem], [completion]) == [task.score(problem, completion)]


def test_the_prompt_becomes_the_one_system_message(case):
    _, task, _ = case
    prompt = task.seed_prompt.replace("system", "Evolved.")
    for problem in task.problems("test"):
        before = json.dumps(problem.messages)
        messages = task.messages(problem, prompt)
        assert [message["role"] for message in messages].count("system") == 1
        assert messages[0]["content"].startswith("Evolved.")
        own = [message["content"] for message in problem.messages if message["role"] == "system"]
        assert all(text in messages[0]["content"] for text in own)
        assert messages[-1] == problem.messages[-1]
        assert json.dumps(problem.messages) == before


def test_another_seed_prompt_changes_nothing_else(case):
    _, task, _ = case
    seeded = task.with_seed_prompt(task.seed_prompt.replace("system", "Evolved."))
    assert seeded.seed_prompt.system == "Evolved." != task.seed_prompt.system
    assert seeded.name == task.name
    assert [p.id for p in everything(seeded)] == [p.id for p in everything(task)]


def test_the_suite_for_authors_passes(case):
    name, task, again = case
    check_task(task, again=again, right=lambda problem: gold(name, problem))
