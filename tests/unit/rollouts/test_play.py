"""Scoring of completions that end well, are cut off, or cannot be scored, with an engine that says what it is told."""

from collections.abc import Sequence
from typing import Any

from fastslow.rollouts.play import RolloutRequest, cut_off_score, make_rollouts
from fastslow.slow.engine import SampleRequest, SamplingParams
from fastslow.types import Completion, FinishReason, Score

from toy import LettersTask


class ScriptedEngine:
    """Samples the same text for every request."""

    policy_version = 5

    def __init__(self, text: str, finish_reason: FinishReason) -> None:
        self.text, self.finish_reason = text, finish_reason
        self.calls = 0

    def encode(self, messages: Sequence[Any]) -> tuple[int, ...]:
        return tuple(map(ord, "".join(message["content"] for message in messages)))

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(map(chr, tokens))

    def sample(self, requests: Sequence[SampleRequest], params: SamplingParams) -> list[list[Completion]]:
        self.calls += 1
        tokens = tuple(map(ord, self.text))
        made = Completion(tokens, (-1.0,) * len(tokens), self.finish_reason)
        return [[made] * request.n for request in requests]


def roll(task: LettersTask, text: str, finish_reason: FinishReason = "stop") -> tuple[Any, ScriptedEngine]:
    engine: Any = ScriptedEngine(text, finish_reason)
    requests = [RolloutRequest(problem, task.seed_prompt, 2, seed=1) for problem in task.problems("train")[:3]]
    return make_rollouts(engine, task, requests, SamplingParams(8), "rl"), engine


def test_one_sampling_call_serves_every_request_in_order() -> None:
    groups, engine = roll(LettersTask(), "ae")
    assert engine.calls == 1
    assert [[r.problem_id for r in group] for group in groups] == [[f"letters-{i}"] * 2 for i in range(3)]
    # Problem 0 asks for a and e, problem 1 for b and i, problem 2 for c and o.
    assert [group[0].reward for group in groups] == [1.0, 0.0, 0.0]
    assert groups[1][0].feedback == "Write the letter b."
    assert {r.policy_version for group in groups for r in group} == {5}


def test_a_cut_off_answer_scores_zero_even_where_it_is_right() -> None:
    groups, _ = roll(LettersTask(), "ae", "length")
    assert groups[0][0].reward == 0.0
    assert groups[0][0].feedback.startswith("The answer was cut off after 2 tokens")
    assert groups[0][0].failure is None


def test_an_empty_answer_scores_zero() -> None:
    groups, _ = roll(LettersTask(), "")
    assert [r.reward for group in groups for r in group] == [0.0] * 6


def test_a_broken_scorer_masks_and_never_scores_zero() -> None:
    groups, _ = roll(LettersTask(broken_every=2), "ae")
    flat = [r for group in groups for r in group]
    assert [r.reward is None for r in flat] == [False, True] * 3
    assert flat[1].failure == "RuntimeError: the sandbox timed out"


def test_nothing_asked_is_nothing_sampled() -> None:
    engine: Any = ScriptedEngine("a", "stop")
    assert make_rollouts(engine, LettersTask(), [], SamplingParams(8), "rl") == []
    assert engine.calls == 0


def test_the_cut_off_rule_stands_in_front_of_the_verifiers_words() -> None:
    score = cut_off_score(Score(1.0, "Correct."), 32)
    assert score == Score(0.0, "The answer was cut off after 32 tokens: keep it shorter.\nCorrect.")
