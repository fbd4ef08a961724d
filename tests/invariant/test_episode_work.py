"""The history of an episode is computed once in sampling, and what is sampled is what it is without that."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fastslow.rollouts.play import RolloutRequest, play
from fastslow.rollouts.settings import EpisodesConfig
from fastslow.slow.engine import Datum, LossSettings, SampleRequest, SamplingParams
from fastslow.slow.local.engine import LocalEngine
from fastslow.slow.settings import ModelConfig, SlowConfig
from fastslow.types import Completion

from toy import TalkTask

PARAMS = SamplingParams(24)
LONG, TURNS = tuple(range(5, 65)), 4


def make(directory: Path, sampler: dict[str, Any] | None = None, **slow: Any) -> LocalEngine:
    config = SlowConfig.model_validate(
        {"sampler": {"kind": "forest", **(sampler or {})}, "max_grad_norm": None, **slow}
    )
    return LocalEngine(ModelConfig(name=str(directory), device="cpu"), config)


class Conversation:
    """Six episodes, three of them after the same words, whose environment says something else in every turn."""

    def __init__(self, engine: LocalEngine, keep: bool = True) -> None:
        self.engine, self.keep, self.turn = engine, keep, 0
        self.contexts = [LONG if i % 2 else (*LONG[:30], 70 + i) for i in range(6)]
        self.known = [0] * 6

    def wave(self) -> list[Completion]:
        requests = [
            SampleRequest(context, 1, 100 * i + self.turn, known, self.keep)
            for i, (context, known) in enumerate(zip(self.contexts, self.known, strict=True))
        ]
        said = [one for (one,) in self.engine.sample(requests, PARAMS)]
        for i, completion in enumerate(said):
            self.contexts[i] += completion.tokens
            self.known[i] = len(self.contexts[i])
            self.contexts[i] += tuple(20 + (self.turn * 7 + place + i) % 60 for place in range(5))
        self.turn += 1
        return said


def waves(engine: LocalEngine, count: int = TURNS, keep: bool = True) -> list[list[Completion]]:
    conversation = Conversation(engine, keep)
    return [conversation.wave() for _ in range(count)]


def assert_same(a: Sequence[Sequence[Completion]], b: Sequence[Sequence[Completion]]) -> None:
    for one, other in zip(a, b, strict=True):
        assert [c.tokens for c in one] == [c.tokens for c in other]
        for x, y in zip(one, other, strict=True):
            assert x.logprobs == pytest.approx(y.logprobs, abs=2e-5)


@pytest.mark.parametrize("decoder", ["growing", "static"])
@pytest.mark.parametrize("rows", [64, 2])
def test_what_is_sampled_is_the_same_and_the_history_is_not_computed_again(
    tiny_model_dir: Path, decoder: str, rows: int
) -> None:
    anew = make(tiny_model_dir, {"decoder": decoder, "kept_gib": 0.0}, sample_rows=rows)
    ours = make(tiny_model_dir, {"decoder": decoder}, sample_rows=rows)
    expected, got = waves(anew), waves(ours)
    assert_same(got, expected)
    before, after = anew.sampler, ours.sampler
    assert before.kept_tokens == 0 and len(before.kept) == 0  # type: ignore[attr-defined]
    assert after.kept_tokens == before.computed_tokens - after.computed_tokens > after.computed_tokens / 2  # type: ignore[attr-defined]
    assert len(after.kept) == 6  # type: ignore[attr-defined]


def test_each_later_turn_computes_what_is_new_alone(tiny_model_dir: Path) -> None:
    engine = make(tiny_model_dir)
    conversation = Conversation(engine)
    conversation.wave()
    before = engine.sampler.computed_tokens  # type: ignore[attr-defined]
    said = conversation.wave()
    # The last token of the turn before, the environment's five, and all that was drawn but its last token.
    new = sum(6 + len(completion.tokens) - 1 for completion in said)
    assert engine.sampler.computed_tokens - before == new  # type: ignore[attr-defined]


def test_without_room_turns_are_computed_again_and_the_same(tiny_model_dir: Path) -> None:
    whole, small = make(tiny_model_dir), make(tiny_model_dir, {"kept_gib": 40 * 512 / 2**30}, sample_rows=2)
    expected = waves(whole)
    conversation, got = Conversation(small), []
    for _ in range(TURNS):
        got.append(conversation.wave())
        assert small.sampler.kept.bytes <= 40 * 512  # type: ignore[attr-defined]
    assert_same(got, expected)
    assert 0 < small.sampler.kept_tokens < whole.sampler.kept_tokens  # type: ignore[attr-defined]


def test_nothing_is_kept_of_weights_that_have_moved(tiny_model_dir: Path, tmp_path: Path) -> None:
    engine, fresh = make(tiny_model_dir), make(tiny_model_dir, {"kept_gib": 0.0})
    ours, theirs = Conversation(engine), Conversation(fresh)
    assert_same([ours.wave()], [theirs.wave()])
    datum = Datum(LONG, (9, 10), (-1.0, -1.0), 1.0, 1.0)
    for one in (engine, fresh):
        one.train_step([datum], LossSettings(), 0.1)
    assert len(engine.sampler.kept) == 0  # type: ignore[attr-defined]
    assert_same([ours.wave()], [theirs.wave()])
    assert engine.sampler.kept_tokens == 0  # type: ignore[attr-defined]
    engine.save(tmp_path, resumable=True)
    engine.load(tmp_path)
    assert len(engine.sampler.kept) == 0  # type: ignore[attr-defined]


def test_one_turn_keeps_nothing_and_episodes_let_go_of_all(tiny_model_dir: Path) -> None:
    engine, kept = make(tiny_model_dir), []
    waves(engine, 1, keep=False)
    assert len(engine.sampler.kept) == 0  # type: ignore[attr-defined]
    sample = engine.sample

    def watched(*arguments: Any) -> Any:
        result = sample(*arguments)
        kept.append(len(engine.sampler.kept))  # type: ignore[attr-defined]
        return result

    engine.sample = watched  # type: ignore[method-assign]
    task = TalkTask(patience=2)
    requests = [RolloutRequest(problem, task.seed_prompt, 2, 1) for problem in task.problems("train")[:4]]
    played = [
        one for group in play(engine, task, requests, PARAMS, episodes=EpisodesConfig(max_turns=3)) for one in group
    ]
    assert max(len(each.turns) for each in played) == 3
    assert kept[0] > 0 and kept[2] == 0, "the last turn that may be is not kept"
    assert len(engine.sampler.kept) == engine.sampler.kept.bytes == 0  # type: ignore[attr-defined]
    engine.sample = lambda *_: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    with pytest.raises(ZeroDivisionError):
        play(engine, task, requests, PARAMS)
    assert len(engine.sampler.kept) == 0  # type: ignore[attr-defined]
