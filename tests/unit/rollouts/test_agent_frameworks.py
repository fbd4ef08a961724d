"""An agent of a real framework, smolagents, as it is: its own loop, its own tools, its own prompts."""

from typing import Any

import pytest

from fastslow.tasks.agents.task import AgentTask
from speaker import Speaker, roll

from toy import LettersTask

smolagents = pytest.importorskip("smolagents", reason="smolagents is not installed: pip install 'fastslow[dev]'")


def multiplier(base_url: str, api_key: str, problem: Any, stream: bool) -> tuple[float, str]:
    """What a user of smolagents writes: a model, a tool, an agent, a question."""

    @smolagents.tool
    def multiply(a: int, b: int) -> int:
        """Multiply two numbers.

        Args:
            a: the first
            b: the second
        """
        return a * b

    model = smolagents.OpenAIServerModel("policy", api_base=base_url, api_key=api_key)
    agent = smolagents.ToolCallingAgent(
        tools=[multiply], model=model, max_steps=4, verbosity_level=0, stream_outputs=stream
    )
    answer = agent.run("What is 17 times 23?")
    return float(str(answer) == "391"), f"It answered {answer}."


@pytest.mark.parametrize("stream", [False, True])
def test_a_smolagents_agent_plays(stream: bool) -> None:
    engine = Speaker(
        '<tool_call>{"name": "multiply", "arguments": {"a": 17, "b": 23}}</tool_call>',
        '<tool_call>{"name": "final_answer", "arguments": {"answer": "391"}}</tool_call>',
    )
    task = AgentTask(multiplier, LettersTask(), agent_options={"stream": stream}, ignore_parameters=["tool_choice"])
    groups = roll(engine, task, problems=2, max_turns=4)
    for (rollout,) in groups:
        assert (rollout.failure, rollout.reward, rollout.feedback) == (None, 1.0, "It answered 391.")
        assert len(rollout.turns) == 2 and rollout.trace is not None and rollout.trace.tool_calls == 2
        # Its memory has calls in words of its own, so that its turns are conversations of their own.
        assert rollout.forks == 1
        second = engine.tokenizer.decode(rollout.turns[1].context_tokens)
        assert "multiply" in second and "391" in second
    assert [len(call) for call in engine.calls] == [2, 2]


def test_what_a_framework_asks_beyond_the_policy_is_named() -> None:
    task = AgentTask(multiplier, LettersTask(), agent_options={"stream": False})
    ((rollout,),) = roll(Speaker("x"), task)
    assert "list tool_choice in task.options.ignore_parameters" in str(rollout.failure)
