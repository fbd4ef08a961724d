"""Episodes of several turns: contexts that are exact, limits, environments that break, and seeds."""

import json
import time
from typing import Any

import pytest

from fastslow.rollouts.play import RolloutRequest, play
from fastslow.runs.record import StepRecord
from fastslow.slow.advantages import AdvantageSettings, build_datums
from fastslow.slow.chat import ChatRenderer
from fastslow.slow.engine import SamplingParams
from fastslow.threads import side_by_side
from fastslow.types import Rollout
from speaker import STRIPS, Speaker, roll

from toy import LettersTask, TalkTask


def test_contexts_are_the_last_ones_tokens_and_what_the_environment_said() -> None:
    engine = Speaker("x", "ya", "ze")
    ((rollout,),) = roll(engine, TalkTask())
    decode = engine.tokenizer.decode
    assert [decode(turn.context_tokens) for turn in rollout.turns] == [
        "<|system|>go<|end|><|user|>n0<|end|><|assistant|>",
        "<|system|>go<|end|><|user|>n0<|end|><|assistant|>x<|end|><|user|>and a<|end|><|assistant|>",
        "<|system|>go<|end|><|user|>n0<|end|><|assistant|>x<|end|><|user|>and a<|end|><|assistant|>ya<|end|>"
        "<|user|>and e<|end|><|assistant|>",
    ]
    assert [turn.text for turn in rollout.turns] == ["x", "ya", "ze"]
    assert (rollout.reward, rollout.end, rollout.forks, rollout.sampled_tokens) == (1.0, "done", 0, 8)
    known = [request.continued_tokens for (request,) in engine.calls]
    assert known == [0, len(rollout.turns[0].tokens), len(rollout.turns[1].tokens)]


def test_a_template_that_strips_thoughts_forks_and_the_fork_is_counted() -> None:
    engine = Speaker("<think>x</think>y", "a", "e", template=STRIPS)
    ((rollout,),) = roll(engine, TalkTask())
    second = engine.tokenizer.decode(rollout.turns[1].context_tokens)
    assert second.endswith("<|assistant|>y<|end|><|user|>and a<|end|><|assistant|>")
    assert (rollout.forks, engine.calls[1][0].continued_tokens) == (1, 0)
    assert rollout.turns[2].continues(rollout.turns[1])


def test_every_wave_is_one_call_and_a_turns_seed_is_its_episodes_own() -> None:
    engine = Speaker("x")
    first = roll(engine, TalkTask(patience=1), n=2, problems=3)
    assert [len(call) for call in engine.calls] == [6, 6]
    seeds = [request.seed for call in engine.calls for request in call]
    assert len(set(seeds)) == 12
    alone = Speaker("x")
    assert roll(alone, TalkTask(patience=1), n=1, problems=1)[0][0] == first[0][0]
    assert [call[0].seed for call in alone.calls] == [call[0].seed for call in engine.calls]


@pytest.mark.parametrize(
    ("settings", "turns", "end", "rule"),
    [
        ({"max_turns": 2}, 2, "max_turns", "The episode was cut off after 2 turns"),
        ({"max_tokens": 17}, 5, "max_tokens", "all its answers together became too long"),
        ({"context_limit": 30}, 2, "context", "no longer fits into the model's context"),
    ],
)
def test_what_ends_at_a_limit_scores_zero_and_names_it(
    settings: dict[str, int], turns: int, end: str, rule: str
) -> None:
    ((rollout,),) = roll(Speaker("a"), TalkTask(patience=9), **settings)
    assert (len(rollout.turns), rollout.end, rollout.reward) == (turns, end, 0.0)
    assert rule in rollout.feedback.splitlines()[0]
    assert rollout.feedback.splitlines()[1] == "Write the letter e."
    assert rollout.trace is not None and rollout.trace.said


def test_a_turn_without_an_end_is_cut_off_and_the_environment_does_not_hear_it() -> None:
    task = TalkTask()
    ((rollout,),) = roll(Speaker("ae", cut=True), task)
    assert (rollout.reward, rollout.end, rollout.finish_reason) == (0.0, "turn_tokens", "length")
    assert task.opened[0].heard == []


def test_environments_that_break_mask_their_own_rollouts_only() -> None:
    trouble = {"0": "raise", "1": "hang", "2": "exit", "3": "nonsense", "4": "flood"}
    task = TalkTask(trouble=trouble)
    groups = roll(Speaker("x"), task, problems=6, step_timeout_s=0.3)
    flat = [rollout for group in groups for rollout in group]
    assert [r.reward is None for r in flat] == [True] * 5 + [False]
    assert [r.end for r in flat] == ["failed", "timed_out", "failed", "failed", "failed", "done"]
    assert [len(r.turns) for r in flat] == [2, 2, 2, 2, 2, 4]
    words = ["the game crashed", "within 0.3 s", "SystemExit", "str, not a list", "1000000 characters"]
    assert all(word in (r.failure or "") for word, r in zip(words, flat, strict=False))
    assert [talk.closed for talk in task.opened] == [1] * 6
    assert build_datums(groups, AdvantageSettings()) == []
    record = StepRecord()
    record.groups(groups)
    counted = ("episodes/environment_failed", "episodes/environment_timed_out", "rollouts/failed")
    assert [record.values[name] for name in counted] == [4, 1, 5]


def test_an_environment_that_cannot_be_made_or_scored_masks_its_rollout() -> None:
    class Broken(TalkTask):
        def episode(self, problem: Any, prompt: Any) -> Any:
            if problem.id == "talk-0":
                raise OSError("no server")
            talk = super().episode(problem, prompt)
            talk.score = lambda: 1 / 0  # type: ignore[method-assign, assignment, return-value]
            return talk

    groups = roll(Speaker("x"), Broken(), problems=2)
    assert "no server" in str(groups[0][0].failure)
    assert (groups[1][0].end, "ZeroDivisionError" in str(groups[1][0].failure)) == ("failed", True)


def test_episodes_are_closed_whatever_happens() -> None:
    task = TalkTask()
    engine = Speaker("x")
    engine.sample = lambda *_: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    with pytest.raises(ZeroDivisionError):
        roll(engine, task, problems=2)
    assert [talk.closed for talk in task.opened] == [1, 1]


def test_outcomes_stand_in_the_order_of_the_calls() -> None:
    calls = [lambda d=delay: time.sleep(d) or d for delay in (0.2, 0.0, 0.1)]
    assert [outcome.value for outcome in side_by_side(calls, 5.0, 3)] == [0.2, 0.0, 0.1]
    late = side_by_side([lambda: time.sleep(2), lambda: 1, lambda: 2], 0.1, 1)
    assert [(o.value, o.timed_out) for o in late] == [(None, True), (1, False), (2, False)]


def test_datums_are_one_a_turn_and_share_the_episodes_advantage() -> None:
    good, bad = roll(Speaker("a", "e"), TalkTask(patience=1))[0][0], roll(Speaker("x"), TalkTask(patience=1))[0][0]
    datums = build_datums([[good, bad]], AdvantageSettings(divide_by_std=False, batch_normalisation=False))
    assert [datum.advantage for datum in datums] == [0.5, 0.5, -0.5, -0.5]
    assert {datum.token_weight for datum in datums} == {1 / 8}
    assert [d.context_tokens for d in datums[:2]] == [turn.context_tokens for turn in good.turns]


def test_rollouts_are_read_back_as_they_were_and_hold_each_token_once() -> None:
    ((rollout,),) = roll(Speaker("x"), TalkTask())
    line = json.loads(json.dumps(rollout.to_json()))
    assert Rollout.from_json(line) == rollout
    assert sum(len(turn["context_tokens"]) + len(turn["completion"]["tokens"]) for turn in line["turns"]) == len(
        rollout.turns[-1].tokens
    )
    forked = roll(Speaker("<think>x</think>y", template=STRIPS), TalkTask())[0][0]
    assert Rollout.from_json(json.loads(json.dumps(forked.to_json()))) == forked


def test_a_rollout_of_one_turn_has_the_line_that_it_always_had() -> None:
    ((rollout,),) = roll(Speaker("ae"), LettersTask())
    line = rollout.to_json()
    assert list(line) == [
        "problem_id", "prompt_hash", "context_tokens", "completion", "text", "reward", "feedback", "failure",
        "policy_version", "source",
    ]  # fmt: skip
    assert Rollout.from_json(json.loads(json.dumps(line))) == rollout


def test_metrics_are_written_for_episodes_alone() -> None:
    record = StepRecord()
    record.groups(roll(Speaker("ae"), LettersTask()))
    assert not [name for name in record.values if name.startswith("episodes/")]
    record.groups(roll(Speaker("x"), TalkTask(trouble={"1": "raise"}), problems=2, max_turns=3))
    values = record.values
    assert values["episodes/turns"] == 2.5
    assert (values["episodes/cut_off_max_turns"], values["episodes/environment_failed"]) == (1, 1)
    assert values["rollouts/failed"] == 1 and values["time/environment_s"] > 0


def test_an_engine_without_a_chat_renders_each_turn_anew() -> None:
    engine = Speaker("x", "a", "e")
    del engine.renderer
    renderer = ChatRenderer(engine.tokenizer)
    engine.encode = renderer.encode  # type: ignore[method-assign]
    ((rollout,),) = roll(engine, TalkTask())
    assert rollout.reward == 1.0
    assert rollout.forks == 0, "its rendering happens to begin with what was sampled"


def test_playing_without_scoring_asks_for_no_score() -> None:
    task = TalkTask()
    request = RolloutRequest(task.problems("train")[0], task.seed_prompt, 1, 0)
    ((played,),) = play(Speaker("x"), task, [request], SamplingParams(8), scored=False)  # type: ignore[arg-type]
    assert played.score is None and len(played.turns) == 4


def test_the_environment_gets_calls_as_the_tokenizer_parses_them_and_the_transcript_what_was_written() -> None:
    engine, task = Speaker("add e", "a"), TalkTask()
    engine.tokenizer.response_template = {"any": "thing"}  # type: ignore[attr-defined]
    call = {"function": {"name": "add", "arguments": {"a": 1}}}
    engine.tokenizer.parse_response = lambda *_, **__: {"content": "", "tool_calls": [call]}  # type: ignore[method-assign, assignment]

    class Armed(TalkTask):
        def episode(self, problem: Any, prompt: Any) -> Any:
            talk = super().episode(problem, prompt)
            talk.tools = ({"type": "function", "function": {"name": "add"}},)  # type: ignore[misc]
            return talk

    task = Armed(patience=1)
    ((rollout,),) = roll(engine, task)
    assert task.opened[0].heard == ['<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>']
    assert [turn.text for turn in rollout.turns] == ["add e"]
    assert rollout.forks == 0
