"""The guard against children that copy single problems: a slice of the anchors that reflection is never shown."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from worlds import SEED, World, make_problems

from fastslow.fast.gepa.optimiser import GepaOptimiser
from fastslow.fast.optimiser import Evolution, Usage
from fastslow.fast.proposers.base import Example, Proposal, ProposalRequest
from fastslow.types import Problem, Prompt


class Copyist:
    """Writes the questions that it is shown into the prompt; or, where `learns`, a rule that holds for all of them."""

    def __init__(self, learns: bool = False) -> None:
        self.learns = learns
        self.shown: set[str] = set()

    def propose(self, parent: Prompt, component: str, examples: Sequence[Example], *, seed: int) -> Proposal:
        raise AssertionError("asked in batches")

    def propose_batch(self, requests: Sequence[ProposalRequest]) -> list[Proposal]:
        return [self._one(request) for request in requests]

    def _one(self, request: ProposalRequest) -> Proposal:
        questions = [example.question for example in request.examples]
        self.shown.update(questions)
        known = request.parent.system.splitlines()
        more = ["rule"] if self.learns else [question for question in questions if question not in known]
        return Proposal("\n".join([*known, *more]), Usage())


def reward(prompt: Prompt, problem: Problem) -> float:
    """1 where the prompt has a rule, or the very question."""
    lines = prompt.system.splitlines()
    return float("rule" in lines or problem.messages[0]["content"] in lines or problem.id in ("p0", "p1", "p2"))


def evolve(proposer: Any, held_out: float, problems: list[Problem] | None = None, calls: int = 200) -> Evolution:
    optimiser = GepaOptimiser(proposer, SEED, metric_calls=calls, reflection_minibatch=4, held_out=held_out)
    return optimiser.evolve(
        [SEED], problems or make_problems(20), World(reward).evaluate, size=2, seed=0, previous_scores={}
    )


def test_a_child_that_copies_what_it_was_shown_is_refused_and_counted() -> None:
    evolution = evolve(Copyist(), 0.25)
    refused = [c for c in evolution.candidates if "reflection was not shown" in c.reason]
    assert refused and not any(candidate.accepted for candidate in refused)
    assert evolution.info["overfitted"] == len(refused)
    assert "but not on the 5 anchors that reflection was not shown: +0.000 a problem" in refused[0].reason
    assert evolution.population == (SEED, SEED)


def test_without_the_guard_it_is_taken() -> None:
    evolution = evolve(Copyist(), 0.0)
    assert "overfitted" not in evolution.info
    assert evolution.population[0] != SEED


def test_a_child_that_learnt_something_passes() -> None:
    evolution = evolve(Copyist(learns=True), 0.25)
    assert evolution.info["overfitted"] == 0 and evolution.population[0].system == "seed\nrule"


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_reflection_is_never_shown_the_slice(share: float) -> None:
    proposer = Copyist()
    evolve(proposer, share, calls=400)
    assert 0 < len(proposer.shown) <= 20 * (1 - share)


def test_each_kind_keeps_problems_to_show() -> None:
    proposer = Copyist()
    problems = [Problem(p.id, p.messages, kind="ab"[index % 2]) for index, p in enumerate(make_problems(12))]
    evolve(proposer, 0.5, problems, calls=400)
    numbers = {int(question.split()[-1]) for question in proposer.shown}
    assert {number % 2 for number in numbers} == {0, 1} and len(numbers) <= 6


def test_the_command_says_how_many_were_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    from fastslow.cli import show
    from fastslow.runs.directory import RunDirectory

    from runs import small_config

    monkeypatch.setenv("COLUMNS", "200")
    run = RunDirectory(tmp_path / "run")
    run.create(small_config(Path("model"), tmp_path / "run"))
    run.write_population(1, 0, (SEED,), {}, {})
    lines = [{"step": step, "fast/overfitted": count} for step, count in ((1, 2), (2, 0), (3, 1))]
    (tmp_path / "run" / "metrics.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8"
    )
    show.population(tmp_path / "run")
    assert "3 children were refused: better on the anchors that reflection was shown" in capsys.readouterr().out
