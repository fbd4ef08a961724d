"""Agents behind the endpoint: what they get, what is recorded of it, and whatever they do wrong."""

import asyncio
import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from callers import client_of, once, talk
from fastslow.errors import TaskError
from fastslow.slow.engine import SampleRequest, SamplingParams
from fastslow.tasks.agents.task import AgentTask
from fastslow.types import Completion, Rollout, Score
from speaker import STRIPS, Speaker, play, roll

from toy import LettersTask, TalkTask

ROOT = Path(__file__).parents[3]

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CALL = '<tool_call>{"name": "weather", "arguments": {"city": "Bonn"}}</tool_call>'


class Dice(Speaker):
    """Says a letter or three that depend on the context and the seed, as a sampler does."""

    def sample(self, requests: Sequence[SampleRequest], params: SamplingParams) -> list[list[Completion]]:
        self.calls.append(list(requests))
        return [[self._say(request)] for request in requests]

    def _say(self, request: SampleRequest) -> Completion:
        digest = hashlib.sha256(repr((request.context_tokens, request.seed)).encode()).digest()
        text = "".join("abcdefgheioutn"[byte % 14] for byte in digest[: 1 + digest[-1] % 3])
        ids = (*self.tokenizer(text, add_special_tokens=False)["input_ids"], self.tokenizer.eos_token_id)
        return Completion(ids, tuple(-1.0 - byte / 256 for byte in digest[: len(ids)]), "stop")


def refusal_of(**parameters: Any) -> tuple[openai.APIStatusError, Rollout]:
    """The error that a call with these parameters gets, and the rollout of an agent that bears it."""
    errors: list[openai.APIStatusError] = []

    def agent(base_url: str, api_key: str, messages: list[Any]) -> float:
        client = client_of(base_url, api_key)
        try:
            client.chat.completions.create(**{"model": "m", "messages": messages, **parameters})
        except openai.APIStatusError as error:
            errors.append(error)
            client.chat.completions.create(model="m", messages=messages)
        return 1.0

    rollout = play(agent)
    return errors[0], rollout


# -- turns -------------------------------------------------------------------------------------------------------------


def test_an_agent_plays_what_the_same_game_as_an_environment_plays() -> None:
    mine, theirs = Speaker("x", "ya", "ze"), Speaker("x", "ya", "ze")
    ((agents,),) = roll(mine, AgentTask(talk, TalkTask()))
    ((environments,),) = roll(theirs, TalkTask())
    assert agents == environments
    assert [r.continued_tokens for (r,) in mine.calls] == [r.continued_tokens for (r,) in theirs.calls]


def test_one_wave_samples_the_calls_of_all_episodes() -> None:
    engine = Speaker("x")
    roll(engine, AgentTask(talk, TalkTask(), agent_options={"tries": 1}), n=2, problems=3)
    assert [len(call) for call in engine.calls] == [6, 6]
    assert len({request.seed for call in engine.calls for request in call}) == 12


def test_more_agents_than_a_clients_usual_connections_call_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    task = AgentTask("experiments.agents.vote:vote", LettersTask(train=101), agent_options={"votes": 1})
    engine = Speaker("ae")
    groups = roll(engine, task, problems=101, step_timeout_s=20.0)
    assert [len(call) for call in engine.calls] == [101]
    assert {rollout.reward is None for (rollout,) in groups} == {False}


def test_at_once_bounds_how_many_agents_run() -> None:
    running, most = [0], [0]

    def agent(base_url: str, api_key: str, messages: list[Any]) -> float:
        running[0] += 1
        most[0] = max(most[0], running[0])
        once(base_url, api_key, messages)
        running[0] -= 1
        return 1.0

    groups = roll(Speaker("a"), AgentTask(agent, LettersTask(), at_once=2), problems=5)
    assert most[0] == 2
    assert [rollout.reward for (rollout,) in groups] == [1.0] * 5


def test_requests_in_another_order_draw_the_same() -> None:
    def run(delays: Sequence[float]) -> list[list[Rollout]]:
        def agent(base_url: str, api_key: str, messages: list[Any], problem: Any) -> tuple[float, str]:
            time.sleep(delays[int(problem.id.rpartition("-")[2])])
            return talk(base_url, api_key, messages, problem)

        return roll(Dice(), AgentTask(agent, TalkTask()), problems=3)

    assert run((0.0, 0.1, 0.2)) == run((0.2, 0.1, 0.0)) == run((0.0, 0.0, 0.0))


def test_calls_of_one_agent_that_overlap_draw_the_same_in_whichever_order_they_come() -> None:
    def run(delays: dict[str, float]) -> Rollout:
        async def agent(base_url: str, api_key: str, messages: list[Any]) -> float:
            async with AsyncOpenAI(base_url=base_url, api_key=api_key, max_retries=0) as client:

                async def ask(name: str) -> None:
                    await asyncio.sleep(delays[name])
                    chat = [{"role": "user", "content": name}]
                    for _ in range(2):
                        said = await client.chat.completions.create(model="m", messages=chat)
                        chat += [{"role": "assistant", "content": said.choices[0].message.content or ""}]
                        chat += [{"role": "user", "content": "more"}]

                await asyncio.gather(*map(ask, delays))
            return 1.0

        engine = Dice()
        sample = engine.sample

        def slowly(*arguments: Any) -> Any:
            time.sleep(0.15)  # so that the calls do overlap
            return sample(*arguments)

        engine.sample = slowly  # type: ignore[method-assign]
        return play(agent, engine)

    first, second = run({"p": 0.0, "q": 0.05}), run({"p": 0.05, "q": 0.0})
    assert first == second
    assert (len(first.turns), first.forks) == (4, 1)
    assert sorted(turn.follows for turn in first.turns if turn.follows is not None) == [-1, 0, 1]


def test_a_call_goes_on_from_whichever_turn_it_continues() -> None:
    def agent(base_url: str, api_key: str, messages: list[Any]) -> float:
        client = client_of(base_url, api_key)

        def ask(chat: list[Any]) -> list[Any]:
            said = client.chat.completions.create(model="m", messages=chat).choices[0].message
            return [*chat, {"role": "assistant", "content": said.content}]

        main = ask(messages)
        ask([{"role": "user", "content": "check it"}])
        main = ask([*main, {"role": "user", "content": "go on"}])
        ask([*main, {"role": "user", "content": "end"}])
        ask([*main[:-1], {"role": "user", "content": "another way"}])
        return 1.0

    engine = Speaker("x", "y", "z", "a", "e")
    rollout = play(agent, engine)
    assert [turn.follows for turn in rollout.turns] == [None, -1, 0, None, 0]
    assert rollout.forked == (False, True, False, False, False)
    said = ["".join(f"{m['role']}: {m['content']}" for m in turn.messages) for turn in rollout.turns]
    assert said == ["", "user: check it", "user: go on", "user: end", "user: go onuser: another way"]
    assert engine.calls[2][0].continued_tokens == len(rollout.turns[0].tokens)
    assert Rollout.from_json(rollout.to_json()) == rollout


def test_history_that_the_agent_has_changed_is_a_conversation_of_its_own() -> None:
    def agent(base_url: str, api_key: str, messages: list[Any]) -> float:
        once(base_url, api_key, messages)
        once(base_url, api_key, [*messages, {"role": "assistant", "content": "b"}, {"role": "user", "content": "so?"}])
        return 1.0

    rollout = play(agent)
    assert (rollout.forks, rollout.turns[1].follows) == (1, -1)
    assert [message["content"] for message in rollout.turns[1].messages] == ["go", "n0", "b", "so?"]


def test_a_template_that_strips_thoughts_forks_agents_too() -> None:
    engine = Speaker("<think>x</think>y", "a", "e", template=STRIPS)
    ((rollout,),) = roll(engine, AgentTask(talk, TalkTask()))
    assert (rollout.forks, rollout.turns[1].follows) == (1, None)


# -- what a call may ask -----------------------------------------------------------------------------------------------


def test_tools_are_called_and_answered_in_openais_form() -> None:
    seen: list[Any] = []

    def agent(base_url: str, api_key: str) -> float:
        client = client_of(base_url, api_key)
        chat: list[Any] = [{"role": "user", "content": "Bonn?"}]
        first = client.chat.completions.create(model="m", messages=chat, tools=[WEATHER], tool_choice="auto")
        seen.append(first.choices[0])
        call = first.choices[0].message.tool_calls[0]
        chat += [first.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
        seen.append(client.chat.completions.create(model="m", messages=chat, tools=[WEATHER]).choices[0])
        return 1.0

    rollout = play(agent, Speaker(f"Let me see. {CALL}", "It rains."))
    message = seen[0].message
    assert (seen[0].finish_reason, message.content) == ("tool_calls", "Let me see.")
    assert (message.tool_calls[0].function.name, message.tool_calls[0].function.arguments) == (
        "weather",
        '{"city": "Bonn"}',
    )
    assert (seen[1].finish_reason, seen[1].message.content) == ("stop", "It rains.")
    assert rollout.forks == 0 and rollout.turns[1].continues(rollout.turns[0])
    assert rollout.turns[1].messages == ({"role": "tool", "name": "weather", "content": "rain"},)
    assert rollout.trace is not None and (rollout.trace.tool_calls, rollout.trace.tool_errors) == (1, ())


def test_a_call_that_cannot_be_read_is_text_and_reflection_hears_why() -> None:
    def agent(base_url: str, api_key: str, messages: list[Any]) -> float:
        client = client_of(base_url, api_key)
        said = client.chat.completions.create(model="m", messages=messages, tools=[WEATHER]).choices[0]
        assert (said.finish_reason, said.message.tool_calls) == ("stop", None)
        assert said.message.content == "<tool_call>{weather}</tool_call>"
        return 0.0

    rollout = play(agent, Speaker("<tool_call>{weather}</tool_call>"))
    assert rollout.failure is None and rollout.trace is not None
    assert "not valid JSON" in rollout.trace.tool_errors[0]


def test_streams_give_what_whole_answers_give() -> None:
    def agent(base_url: str, api_key: str) -> float:
        client = client_of(base_url, api_key)
        chat: Any = [{"role": "user", "content": "Bonn?"}]
        tools: Any = [WEATHER]
        with client.chat.completions.stream(
            model="m", messages=chat, tools=tools, stream_options={"include_usage": True}, logprobs=True
        ) as stream:
            whole = stream.get_final_completion()
        choice = whole.choices[0]
        assert (choice.finish_reason, choice.message.content) == ("tool_calls", "So.")
        assert choice.message.tool_calls is not None
        assert choice.message.tool_calls[0].function.arguments == '{"city": "Bonn"}'
        assert whole.usage is not None and choice.logprobs is not None and choice.logprobs.content is not None
        assert whole.usage.completion_tokens == len(choice.logprobs.content) > 60
        assert "".join(piece.token for piece in choice.logprobs.content) == f"So. {CALL}"
        pieces = client.chat.completions.create(model="m", messages=chat, stream=True)
        assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == f"So. {CALL}"
        return 1.0

    assert play(agent, Speaker(f"So. {CALL}")).failure is None


def test_several_choices_are_several_turns_and_differ() -> None:
    said: list[str | None] = []

    def agent(base_url: str, api_key: str, messages: list[Any]) -> float:
        client = client_of(base_url, api_key)
        made = client.chat.completions.create(model="m", messages=messages, n=4, logprobs=True)
        again = client.chat.completions.create(model="m", messages=messages)
        said.extend(choice.message.content for choice in [*made.choices, *again.choices])
        chat = [*messages, {"role": "assistant", "content": said[2]}, {"role": "user", "content": "more"}]
        client.chat.completions.create(model="m", messages=chat)
        return 1.0

    rollout = play(agent, Dice())
    assert [turn.text for turn in rollout.turns[:5]] == said and len(set(said)) > 2
    assert rollout.turns[5].continues(rollout.turns[2])
    assert rollout.forks == 4


def test_stop_texts_and_a_limit_of_the_agents_own_cut_what_was_sampled() -> None:
    def agent(base_url: str, api_key: str, messages: list[Any]) -> float:
        client = client_of(base_url, api_key)
        stopped = client.chat.completions.create(model="m", messages=messages, stop=["END", "x"], logprobs=True)
        choice = stopped.choices[0]
        assert (choice.finish_reason, choice.message.content) == ("stop", "abc")
        assert [piece.token for piece in choice.logprobs.content] == list("abcEND")
        chat = [*messages, {"role": "assistant", "content": "abc"}, {"role": "user", "content": "more"}]
        short = client.chat.completions.create(model="m", messages=chat, max_completion_tokens=2)
        assert (short.choices[0].finish_reason, short.choices[0].message.content) == ("length", "ab")
        return 1.0

    rollout = play(agent, Speaker("abcENDx"))
    assert rollout.end == "done" and rollout.forks == 0
    assert [len(turn.completion.tokens) for turn in rollout.turns] == [6, 2]
    assert [turn.text for turn in rollout.turns] == ["abcEND", "ab"]


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"temperature": 0.2}, "temperature: '0.2' cannot be honoured"),
        ({"top_logprobs": 3, "logprobs": True}, "top_logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"tool_choice": "required", "tools": [WEATHER]}, "ignore_parameters"),
        ({"extra_body": {"guided_json": {}}}, "guided_json"),
        ({"n": 0}, "n: '0' is not a whole number"),
        ({"messages": []}, "at least one message"),
        ({"messages": [{"role": "assistant", "content": "I"}]}, "The last message is the assistant's"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "a text"),
        ({"stop": [""]}, "stop must be"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name_and_costs_nothing(parameters: dict[str, Any], words: str) -> None:
    error, rollout = refusal_of(**parameters)
    assert isinstance(error, openai.BadRequestError) and words in error.message
    assert (len(rollout.turns), rollout.reward) == (1, 1.0)


def test_what_says_nothing_is_taken_and_what_the_task_ignores_is_ignored() -> None:
    def agent(base_url: str, api_key: str, messages: list[Any]) -> float:
        client = client_of(base_url, api_key)
        client.chat.completions.create(
            model="m", messages=messages, temperature=0.2, top_p=1, n=1, seed=5, user="u", presence_penalty=0.0
        )  # fmt: skip
        assert [model.id for model in client.models.list()] == ["policy"]
        return 1.0

    assert play(agent, ignore_parameters=["temperature"]).failure is None


# -- what an agent returns ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "reward", "feedback"),
    [
        (0.5, 0.5, ""),
        (True, 1.0, ""),
        ((0.25, "Add e."), 0.25, "Add e."),
        (Score(1.0, "Good."), 1.0, "Good."),
        ("a", 0.5, "Write the letter e."),
    ],
)
def test_a_reward_a_score_or_a_text_is_a_verdict(value: Any, reward: float, feedback: str) -> None:
    def agent(base_url: str, api_key: str, messages: list[Any]) -> Any:
        once(base_url, api_key, messages)
        return value

    rollout = play(agent)
    assert (rollout.reward, rollout.feedback, rollout.end) == (reward, feedback, "done")


@pytest.mark.parametrize("value", [None, 2.0, {"reward": 1}])
def test_what_is_no_score_stops_the_run(value: Any) -> None:
    def agent(base_url: str, api_key: str, messages: list[Any]) -> Any:
        once(base_url, api_key, messages)
        return value

    with pytest.raises(TaskError, match=r"agent|reward"):
        play(agent)
