"""Prompts and problems that are too long for the model: a candidate costs itself, a problem stops the run early."""

import json
import re
from pathlib import Path
from typing import Any, ClassVar

import pytest

from fastslow.cli.main import main
from fastslow.errors import ConfigError, TooLongError, told
from fastslow.loop import train
from fastslow.plan import describe
from fastslow.runs.directory import config_text
from fastslow.runs.reader import read_candidates, read_population
from fastslow.types import Problem, Prompt, Score

from chat_server import Answer, ChatServer
from runs import metrics_of, record_of, small_config
from tiny import make_model_dir
from toy import LettersTask

POSITIONS = 64
# A token a character: of 64 positions 8 are the completion's, 10 take the markup and the longest problem, "n1003".
ROOM = 46


class WordyTask(LettersTask):
    """Its feedback is longer than the model's context; one failure in three is told in short."""

    name: ClassVar[str] = "wordy"

    def score(self, problem: Problem, completion: str) -> Score:
        score = super().score(problem, completion)
        long = int(problem.id.rsplit("-")[-1]) % 3
        return Score(score.reward, score.feedback + "!" * (80 if long else 0) if score.feedback else "")


class LongTask(LettersTask):
    """One problem of each split is longer than the others; `longest` says by how many characters."""

    name: ClassVar[str] = "long"

    def __init__(self, train: int = 0, validation: int = 0) -> None:
        super().__init__()
        self.longest = {7: train, 1002: validation}

    def _problem(self, number: int) -> Problem:
        problem = super()._problem(number)
        text = problem.messages[0]["content"] + "x" * self.longest.get(number, 0)
        return Problem(problem.id, ({"role": "user", "content": text},), problem.data)


@pytest.fixture(scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_dir(tmp_path_factory.mktemp("small"), max_position_embeddings=POSITIONS)


def refused_for_length(run: Path) -> list[dict[str, Any]]:
    return [line for line in read_candidates(run) if "too long for the model" in line["reason"]]


def total(run: Path, name: str) -> Any:
    return sum(line.get(name) or 0 for line in metrics_of(run))


def settings(server: ChatServer, **changes: Any) -> dict[str, Any]:
    proposer = {"kind": "openai", "model": "x", "base_url": server.url, "backoff_s": 0.001}
    return {"anchor_problems": 6, "metric_calls": 24, "reflection_minibatch": 3, "proposer": proposer, **changes}


def limits(server: ChatServer) -> list[int]:
    texts = [request["messages"][-1]["content"] for request in server.requests]
    return [int(found) for text in texts for found in re.findall(r"at most (\d+) characters", text)]


def test_a_candidate_that_does_not_fit_is_refused_counted_and_ends_nothing(small_model: Path, tmp_path: Path) -> None:
    def answer(number: int, request: dict[str, Any]) -> Answer:
        long = {0: "", 1: "x" * 80, 2: "y" * (ROOM + 1 - 4)}[number % 3]
        return Answer(text=f"<new_prompt>{number:04d}{long}</new_prompt>")

    run = tmp_path / "run"
    with ChatServer(answer) as server:
        train(small_config(small_model, run, fast=settings(server)))
    refused = refused_for_length(run)
    assert [line["step"] for line in metrics_of(run)] == list(range(7))
    asked = len(server.requests)
    assert len(refused) == total(run, "fast/too_long") == sum(number % 3 > 0 for number in range(asked)) > 2
    assert total(run, "fast/reflection_refused") == len(refused)
    assert not any(line["accepted"] for line in refused)
    by_one = next(line for line in refused if "y" in line["components"]["system"])
    assert by_one["reason"].startswith(
        "refused: the prompt is 1 tokens too long for the model: with problem 'letters-1"
    )
    assert "8 tokens after a context of 57 exceed the model's 64 positions" in by_one["reason"]
    assert max(len(prompt.system) for prompt in read_population(run)) <= ROOM
    assert limits(server) == [ROOM] * asked
    assert "no more fits" in server.requests[0]["messages"][-1]["content"]


def test_the_limit_that_reflection_is_told_is_the_configs_where_that_is_lower(
    small_model: Path, tmp_path: Path
) -> None:
    with ChatServer([Answer(text="<new_prompt>go now</new_prompt>")]) as server:
        fast = settings(server)
        fast["proposer"]["max_prompt_chars"] = 20
        train(small_config(small_model, tmp_path / "run", fast=fast, steps=2))
    assert set(limits(server)) == {20}
    assert "no more fits" not in server.requests[0]["messages"][-1]["content"]


def test_a_longest_problem_that_is_only_validated_on_counts(small_model: Path, tmp_path: Path) -> None:
    run, task = tmp_path / "run", {"name": f"{__name__}:LongTask", "options": {"validation": 30}}
    with ChatServer([Answer(text=f"<new_prompt>{'x' * 20}</new_prompt>")]) as server:
        train(small_config(small_model, run, fast=settings(server), task=task))
    assert set(limits(server)) == {ROOM - 30}
    assert refused_for_length(run)
    assert all("val/mean@2" in line for line in metrics_of(run) if line["step"] % 3 == 0)


def test_the_lesson_proposer_goes_on_where_a_lesson_is_too_long_and_so_does_a_resumed_run(
    small_model: Path, tmp_path: Path
) -> None:
    task = {"name": f"{__name__}:WordyTask"}
    train(small_config(small_model, tmp_path / "whole", task=task))
    assert refused_for_length(tmp_path / "whole")
    train(small_config(small_model, tmp_path / "cut", task=task, steps=3))
    train(small_config(small_model, tmp_path / "cut", task=task), resume=tmp_path / "cut")
    assert record_of(tmp_path / "cut") == record_of(tmp_path / "whole")


def test_a_member_that_does_not_fit_leaves_the_population_of_an_earlier_versions_run(
    small_model: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    train(small_config(small_model, run, steps=3))
    path = run / "checkpoints" / "step_3" / "resume" / "loop.json"
    loop = json.loads(path.read_text(encoding="utf-8"))
    loop["state"]["population"] = [{"system": "x" * (ROOM + 1)}, {"system": "go"}]
    path.write_text(json.dumps({"state": loop["state"], "positions": loop["positions"]}), encoding="utf-8")
    train(small_config(small_model, run), resume=run)
    assert all(len(prompt.system) <= ROOM for prompt in read_population(run))
    assert total(run, "rollouts/failed") == 0


def test_a_problem_that_an_earlier_versions_run_had_not_come_to_is_masked(small_model: Path, tmp_path: Path) -> None:
    run, task = tmp_path / "run", {"name": f"{__name__}:LongTask"}
    train(small_config(small_model, run, method="rl", task=task, steps=1, checkpoint_every=1))
    now = {**task, "options": {"train": 60}}
    config = small_config(small_model, run, method="rl", task=now, checkpoint_every=1)
    (run / "config.yaml").write_text(config_text(config), encoding="utf-8")
    train(config, resume=run)
    failed = [line["rollouts/failed"] for line in metrics_of(run) if line["step"] > 1]
    assert sorted(set(failed)) == [0, 4]  # a group of four, in each of its steps
    samples = "".join(path.read_text(encoding="utf-8") for path in (run / "rollouts").iterdir())
    assert "the context is too long: 8 tokens after a context of 69 exceed the model's 64 positions" in samples


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_problem_that_is_too_long_is_found_before_a_model_loads(
    small_model: Path, tmp_path: Path, split: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = {"name": f"{__name__}:LongTask", "options": {split: 60}}
    config = small_config(small_model, tmp_path / "run", task=task)
    number, tokens = ("7", 69) if split == "train" else ("1002", 72)
    monkeypatch.setattr("fastslow.training.build.build_engine", lambda config: pytest.fail("a model was loaded"))
    for function in (describe, train):
        with pytest.raises(ConfigError) as caught:
            function(config)
        message = str(caught.value)
        assert "sampling.max_tokens: 1 of 16 problems do not fit into the model's context" in message
        assert f"'long-{number}' of the {split} split, is {tokens + 8 - 64} tokens too long" in message
        assert f"8 tokens after a context of {tokens} exceed the model's 64 positions" in message
        assert "Ways out: leave such problems out of the task, shorten the seed prompt, or take a model" in message
    assert not (tmp_path / "run").exists()


def test_the_dry_run_says_what_is_left_and_how_far_to_lower_the_completions(
    small_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = small_config(small_model, tmp_path / "run")
    assert "the longest takes 12 tokens of the model's 64, and a completion 8: 44 are left for longer" in describe(
        config
    )
    (tmp_path / "config.yaml").write_text(config_text(config).partition("versions:")[0], encoding="utf-8")
    assert main(["train", str(tmp_path / "config.yaml"), "--dry-run", "--set", "sampling.max_tokens=60"]) == 2
    assert "16 of 16 problems do not fit" in (message := capsys.readouterr().err)
    assert "lower sampling.max_tokens to 52" in message


def test_a_teacher_that_is_given_must_fit_as_well(small_model: Path, tmp_path: Path) -> None:
    config = small_config(small_model, tmp_path / "run", method="distill", distill={"prompt": "be brief " * 6})
    with pytest.raises(ConfigError, match=r"under distill.prompt. .* is 8 tokens too long"):
        describe(config)


def test_where_a_prompt_leaves_no_room_for_validation_it_is_said_and_the_run_goes_on(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never_fits(*unused: Any) -> None:
        raise TooLongError("sampling.max_tokens: too long")

    monkeypatch.setattr("fastslow.measuring.validation.evaluate_prompts", never_fits)
    result = train(small_config(small_model, tmp_path / "run", method="rl", steps=3))
    assert result.steps == 3
    assert told(TooLongError("a")) == "a"
    assert Prompt.of("go") == result.best_prompt
