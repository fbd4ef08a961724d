"""The contexts of a teacher: what the student sampled, after another prompt."""

from typing import Any

import pytest

from callers import once, talk
from fastslow.errors import InfrastructureError
from fastslow.rollouts.retold import Retold
from fastslow.rollouts.settings import EpisodesConfig
from fastslow.slow.distillation import build_distill_datums
from fastslow.tasks.agents.task import AgentTask
from fastslow.types import Prompt
from speaker import STRIPS, Speaker, roll

from toy import LettersTask, TalkTask

TEACHER = Prompt.of("think")


def retold(engine: Any, task: Any) -> Retold:
    return Retold(engine, task, {p.id: p for p in task.problems("train")}, TEACHER, EpisodesConfig(step_timeout_s=0.3))


def test_the_teacher_reads_the_same_episode_after_its_own_prompt() -> None:
    engine, task = Speaker("x", "ya", "ze"), TalkTask()
    ((rollout,),) = roll(engine, task)
    contexts = retold(engine, task).contexts(rollout)
    said = [engine.decode(turn.context_tokens).replace("go", "think", 1) for turn in rollout.turns]
    assert [engine.decode(context) for context in contexts] == said
    assert contexts[2][: len(contexts[1])] == contexts[1]
    assert all(talk.closed == 1 for talk in task.opened)


def test_a_forked_turn_is_rendered_anew_for_the_teacher_too() -> None:
    engine, task = Speaker("<think>x</think>y", "a", "e", template=STRIPS), TalkTask()
    ((rollout,),) = roll(engine, task)
    second = engine.tokenizer.decode(retold(engine, task).contexts(rollout)[1])
    assert second == "<|system|>think<|end|><|user|>n0<|end|><|assistant|>y<|end|><|user|>and a<|end|><|assistant|>"


def test_an_agents_teacher_reads_its_calls_after_its_own_prompt() -> None:
    engine, task = Speaker("x", "ya", "ze"), AgentTask(talk, TalkTask())
    ((rollout,),) = roll(engine, task)
    said = [engine.decode(turn.context_tokens).replace("go", "think", 1) for turn in rollout.turns]
    assert [engine.decode(context) for context in retold(engine, task).contexts(rollout)] == said


def test_a_conversation_that_does_not_begin_with_the_opening_has_no_teacher() -> None:
    def agent(base_url: str, api_key: str, messages: Any) -> float:
        once(base_url, api_key, messages)
        once(base_url, api_key, [{"role": "user", "content": "check"}])
        return 1.0

    engine, task = Speaker("x"), AgentTask(agent, LettersTask())
    ((rollout,),) = roll(engine, task)
    with pytest.raises(InfrastructureError, match="turn 2 begins a conversation of its own"):
        retold(engine, task).contexts(rollout)


def test_a_task_of_one_turn_has_one_context() -> None:
    engine, task = Speaker("ae"), LettersTask()
    ((rollout,),) = roll(engine, task)
    assert retold(engine, task).contexts(rollout) == [engine.encode(task.messages(task.problems("train")[0], TEACHER))]


def test_a_turn_that_does_not_fit_after_the_teachers_prompt_is_left_out() -> None:
    engine, task = Speaker("x", "ya", "ze"), TalkTask()
    ((rollout,),) = roll(engine, task)
    lengths = [len(context) for context in retold(engine, task).contexts(rollout)]
    datums = build_distill_datums([[rollout]], retold(engine, task).contexts, lengths[1] + 3)
    assert [len(datum.teacher_context_tokens) for datum in datums] == lengths[:2]
    assert {datum.token_weight for datum in datums} == {1 / rollout.sampled_tokens}


def test_an_environment_that_does_not_start_for_the_teacher_is_reported() -> None:
    engine, task = Speaker("x"), TalkTask()
    ((rollout,),) = roll(engine, task)

    class Down(TalkTask):
        def episode(self, problem: Any, prompt: Any) -> Any:
            talk = super().episode(problem, prompt)
            talk.start = lambda: 1 / 0  # type: ignore[method-assign, assignment, return-value]
            return talk

    with pytest.raises(InfrastructureError, match=r"talk-0.*did not start under another prompt: ZeroDivisionError"):
        retold(engine, Down()).contexts(rollout)
