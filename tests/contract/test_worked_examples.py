"""One component of every kind, written outside the package: a file, named in the config, and its effect."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from fastslow.cli.main import main
from fastslow.loop import train

from runs import metrics_of, small_config

Write = Callable[[str, str], None]
FIXTURES = Path(__file__).parents[1] / "fixtures" / "runs"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a module into the current directory, which is where `fastslow` is started."""
    monkeypatch.chdir(tmp_path)

    def write(name: str, code: str) -> None:
        monkeypatch.delitem(sys.modules, name, raising=False)
        (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")

    return write


def run(model: Path, **overrides: Any) -> list[dict[str, Any]]:
    """The metrics of a run of two steps."""
    train(small_config(model, Path("run"), steps=2, **overrides))
    return metrics_of(Path("run"))


TASK = """
from fastslow import Problem, Score, Task

FIRST = {"train": 0, "validation": 100, "test": 200}


class Short(Task):
    '''The reward falls with the length of the answer.'''

    name = "short"

    def __init__(self, longest: int = 8):
        self.longest = longest

    def problems(self, split):
        return [
            Problem(f"short-{number}", ({"role": "user", "content": f"n{number}"},))
            for number in range(FIRST[split], FIRST[split] + 12)
        ]

    def score(self, problem, completion):
        reward = max(0.0, 1.0 - len(completion) / self.longest)
        return Score(reward, f"{len(completion)} characters are too many." if completion else "Correct.")
"""


def test_a_task(write: Write, tiny_model_dir: Path) -> None:
    write("my_short", TASK)
    lines = run(tiny_model_dir, task={"name": "my_short:Short", "options": {"longest": 1000}})
    # 8 tokens at most, of a few characters each.
    assert all(0.9 < line["reward/mean"] < 1.0 for line in lines[1:])


def records(path: Path) -> None:
    lines = [{"question": f"n{i}", "answer": "ab"[i % 2]} for i in range(30)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


SCORERS = """
from fastslow.tasks.scorers import Scorer
from fastslow.types import Score


def quarter(completion, answer):
    return (0.3 if completion == answer else 0.25), f"It begins with {answer}."


def prepare(answer):
    if answer not in ("a", "b"):
        raise ValueError("is neither a nor b")
    return answer


LETTERS = Scorer(prepare, lambda completion, answer, form: Score(0.5, f"{form.rule} It begins with {answer}."))
"""


@pytest.mark.parametrize(("scorer", "reward"), [("my_scorers:quarter", 0.25), ("my_scorers:LETTERS", 0.5)])
def test_a_scorer(write: Write, tiny_model_dir: Path, scorer: str, reward: float) -> None:
    write("my_scorers", SCORERS)
    records(Path("data.jsonl"))
    options = {
        "data": "data.jsonl", "splits": {"train": 12, "validation": 4, "test": 2}, "prompt": "question",
        "answer": "answer", "scorer": scorer,
    }  # fmt: skip
    lines = run(tiny_model_dir, task={"name": "records", "options": options})
    assert [line["reward/mean"] for line in lines[1:]] == pytest.approx(
        [reward, reward], abs=0.06
    )  # one that is cut off has 0


def test_a_scorer_reads_every_answer_before_any_model_loads(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    write("my_scorers", SCORERS)
    Path("data.jsonl").write_text('{"question": "n1", "answer": "c"}\n', encoding="utf-8")
    arguments = ["tasks", "records"]
    for option in ("data=data.jsonl", "prompt=question", "answer=answer", "scorer=my_scorers:LETTERS"):
        arguments += ["--set", option]
    assert main([*arguments, "--set", "splits={train: rest}"]) == 2
    assert "the answer 'c' is neither a nor b (column 'answer')" in capsys.readouterr().err


OPTIMISER = """
from fastslow.errors import InfrastructureError
from fastslow.fast.optimiser import Candidate, Evolution, Usage


class Once:
    '''Tries one fixed prompt.'''

    def __init__(self, text: str, metric_calls: int):
        self.text, self.metric_calls = text, metric_calls

    def evolve(self, population, problems, evaluate, *, size, seed, previous_scores):
        old, new = population[0], population[0].replace("system", self.text)
        anchors = problems[: self.metric_calls // 2]
        evaluations = evaluate([(prompt, problem) for prompt in (old, new) for problem in anchors])
        if all(evaluation.reward is None for evaluation in evaluations):
            raise InfrastructureError("nothing could be scored")
        return Evolution((new,) * size, (Candidate(new, old.hash, True, "the one"),), len(evaluations), Usage())
"""


def test_a_prompt_optimiser(write: Write, tiny_model_dir: Path) -> None:
    write("my_once", OPTIMISER)
    fast = {"optimiser": "my_once:Once", "options": {"text": "Write abc."}, "anchor_problems": 5, "metric_calls": 24}
    lines = run(tiny_model_dir, fast=fast)
    assert sum(line["fast/metric_calls"] for line in lines) == 2 * 5
    assert json.loads(Path("run/population.json").read_text())["population"][0]["components"] == {
        "system": "Write abc."
    }


PROPOSER = """
from fastslow.fast.optimiser import Usage
from fastslow.fast.proposers.base import Proposal


class Counting:
    def __init__(self, word: str = "more"):
        self.word = word

    def propose(self, parent, component, examples, *, seed):
        return Proposal(f"{parent.as_dict()[component]} {self.word} {seed % 9}", Usage(calls=1, usd=0.25))
"""


def test_a_proposer(write: Write, tiny_model_dir: Path) -> None:
    write("my_counting", PROPOSER)
    lines = run(tiny_model_dir, fast={"proposer": {"kind": "my_counting:Counting", "options": {"word": "again"}}})
    calls = sum(line["fast/reflection_calls"] for line in lines)
    assert calls > 0
    assert lines[-1]["usd_total"] == 0.25 * calls
    assert "again" in Path("run/prompts.jsonl").read_text(encoding="utf-8")


TRACKER = """
import json


class Lines:
    def __init__(self, config):
        self.path = config.output + ".tracked"

    def on_event(self, kind, payload):
        if kind == "step":
            with open(self.path, "a") as file:
                print(json.dumps([payload["step"], payload["reward/mean"]]), file=file)
"""


@pytest.mark.parametrize("by", ["python", "command"])
def test_a_tracker(write: Write, tiny_model_dir: Path, by: str) -> None:
    write("my_lines", TRACKER)
    config = small_config(tiny_model_dir, Path("run"), steps=2, tracker="my_lines:Lines", method="rl")
    if by == "python":
        train(config)
    else:
        tree = config.model_dump(mode="json", exclude_defaults=True)
        Path("my.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
        assert main(["train", "my.yaml", "--quiet"]) == 0
    tracked = [json.loads(line) for line in Path("run.tracked").read_text(encoding="utf-8").splitlines()]
    assert tracked == [[line["step"], line["reward/mean"]] for line in metrics_of(Path("run"))]
    assert [step for step, _ in tracked] == [0, 1, 2]


EVIL = """
from pathlib import Path

Path("imported").write_text("somebody ran what a config names")
"""
NAMED = {
    "task": {"name": "my_evil:Task", "options": {}},
    "tracker": "my_evil:Tracker",
    "fast": {"optimiser": "my_evil:Optimiser", "proposer": {"kind": "my_evil:Proposer"}},
}


@pytest.mark.parametrize(
    "command",
    [
        ["report", "run", "--output", "page.html"],
        ["prompts", "run"],
        ["prompts", "run", "--tree"],
        ["prompts", "run", "--best"],
        ["prompts", "run", "--all"],
    ],
    ids=" ".join,
)
def test_looking_at_a_run_imports_nothing_that_its_config_names(write: Write, command: list[str]) -> None:
    write("my_evil", EVIL)
    subprocess.run(["cp", "-r", str(FIXTURES / "fst-lora-killed"), "run"], check=True)
    config = yaml.safe_load(Path("run/config.yaml").read_text(encoding="utf-8"))
    Path("run/config.yaml").write_text(yaml.safe_dump({**config, **NAMED}), encoding="utf-8")
    assert main(command) == 0
    assert not Path("imported").exists()
    assert "my_evil" not in sys.modules
    # The trap works: whoever trains does import it.
    assert main(["train", "--resume", "run", "--dry-run", "--trust-code"]) == 2
    assert Path("imported").exists()
