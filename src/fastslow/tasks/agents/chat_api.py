"""OpenAI's chat completions, as far as an agent needs them: from a request's JSON to messages,
and from answers to JSON.

What cannot be honoured is refused, unless the task's `ignore_parameters` says otherwise: an agent that thinks that it
has set a temperature would be measured at another one.
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fastslow.tasks.tool_calls import Call, Malformed, read_calls, write_call
from fastslow.types import Message, Tool

MODEL = "policy"
"""The name of the one model that there is; a request may call it whatever it likes."""
NO_EFFECT = ("user", "metadata", "seed", "store", "service_tier", "safety_identifier", "prompt_cache_key")
"""Parameters that are taken and change nothing. The run's seed draws the completions."""
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "temperature": (1,),
    "top_p": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "tool_choice": ("auto", "none"),
    "parallel_tool_calls": (True,),
}
"""Parameters that are taken where they have the API's own default, which asks for nothing."""
READ = (
    "messages", "model", "n", "max_tokens", "max_completion_tokens", "stop", "logprobs", "stream", "stream_options",
    "tools",
)  # fmt: skip
"""Parameters that are honoured."""
DRAWN = ("temperature", "top_p", "seed")
"""Parameters that a server of a trained model honours as well."""
ADVICE = (
    "the run's config says how completions are drawn. Leave it out, or list {name} in task.options.ignore_parameters."
)
MOST_CHOICES, MOST_STOPS = 128, 16
_THOUGHTS = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_CALLS_BEGIN = re.compile(r"<tool_call>|\[TOOL_CALLS\]|<\|python_tag\|>|\{")

Finish = Literal["stop", "length", "tool_calls"]


class Refused(Exception):
    """A request that gets an error. `retry`: the client may try again later."""

    def __init__(
        self, status: int, message: str, *, code: str | None = None, param: str | None = None, retry: bool = False
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param, self.retry = status, message, code, param, retry

    def to_json(self) -> dict[str, Any]:
        """As OpenAI's clients read it."""
        kinds = {
            401: "authentication_error", 403: "permission_error", 429: "rate_limit_error", 500: "server_error",
        }  # fmt: skip
        kind = kinds.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


@dataclass(frozen=True)
class Drawn:
    """How a request wants completions drawn; None where it does not say. Agents do not: their run's config holds."""

    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None


@dataclass(frozen=True)
class ChatRequest:
    """One call of an agent. `max_tokens`: the agent's own limit; None: it has none."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    model: str = MODEL
    n: int = 1
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: bool = False
    stream: bool = False
    include_usage: bool = False
    drawn: Drawn = Drawn()


@dataclass(frozen=True)
class Choice:
    """One completion as the agent gets it: the text beside the calls, the calls, (text, nats) of each sampled token."""

    text: str
    calls: tuple[Call, ...]
    finish_reason: Finish
    tokens: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Answer:
    """The answer to a call. `id` is made of the completions' seed, so that it is the same in a run that is resumed."""

    id: str
    choices: tuple[Choice, ...]
    prompt_tokens: int
    created: int = 0
    """Seconds since 1970. Agents get 0: what they get is the same in a run that is resumed."""
    fingerprint: str | None = None
    """What drew it: `system_fingerprint`."""


# -- requests ----------------------------------------------------------------------------------------------------------


def read_request(body: Any, ignored: Collection[str] = (), *, draws: bool = False, advice: str = ADVICE) -> ChatRequest:
    """A request from its JSON. Raises Refused for what is malformed,
    and for what cannot be honoured and is not `ignored`.

    `draws`: the request may say how completions are drawn (temperature, top_p, seed). `advice`: what a refusal ends
    with; it may name the parameter as {name}.
    """
    if not isinstance(body, Mapping):
        raise _wrong("The body must be a JSON object.")
    given = {name: value for name, value in body.items() if value is not None and not _says_nothing(name, value)}
    for name, value in given.items():
        if name not in READ and name not in ignored and not (draws and name in DRAWN):
            raise _wrong(f"{name}: {str(value)[:100]!r} cannot be honoured: {advice.format(name=name)}", name)
    options = given.get("stream_options", {})
    if not isinstance(options, Mapping):
        raise _wrong("stream_options must be an object.", "stream_options")
    limits = [_number(given, name) for name in ("max_tokens", "max_completion_tokens") if name in given]
    shown = body.get("tool_choice") != "none"
    return ChatRequest(
        read_messages(given.get("messages")),
        _tools(given.get("tools", [])) if shown else (),
        str(given.get("model", MODEL)),
        _number(given, "n", MOST_CHOICES) if "n" in given else 1,
        min(limits) if limits else None,
        _stops(given.get("stop", [])),
        _flag(given, "logprobs"),
        _flag(given, "stream"),
        _flag(options, "include_usage"),
        _drawn(body) if draws else Drawn(),
    )


def _drawn(body: Mapping[str, Any]) -> Drawn:
    """What a request says of how its completions are drawn. Raises Refused for numbers out of range."""
    seed = body.get("seed")
    if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool) or not -(2**63) <= seed < 2**63):
        raise _wrong(f"seed: {str(seed)[:100]!r} is not a whole number of 64 bits.", "seed")
    return Drawn(_share(body, "temperature", 0.0, 2.0), _share(body, "top_p", 1e-6, 1.0), seed)


def _share(body: Mapping[str, Any], name: str, least: float, most: float) -> float | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
        raise _wrong(f"{name}: {str(value)[:100]!r} is not a number from {least:g} to {most:g}.", name)
    return float(value)


def read_messages(value: Any) -> tuple[Message, ...]:
    """Chat messages with a text each, the calls of the assistant's written into its text. Raises Refused."""
    if not isinstance(value, list) or not value:
        raise _wrong("messages must be a list with at least one message.", "messages")
    names: dict[str, str] = {}
    messages = [_message(message, f"messages[{index}]", names) for index, message in enumerate(value)]
    if messages[-1]["role"] == "assistant":
        raise _wrong("The last message is the assistant's: a turn that is begun cannot be continued.", "messages")
    return tuple(messages)


def _message(message: Any, where: str, names: dict[str, str]) -> Message:
    """One message; `names` has the tool that each call was of."""
    if not isinstance(message, Mapping):
        raise _wrong(f"{where} must be an object.", where)
    role = {"developer": "system"}.get(str(message.get("role")), str(message.get("role")))
    if role not in ("system", "user", "assistant", "tool"):
        raise _wrong(f"{where}.role: {role!r} is not system, developer, user, assistant or tool.", where)
    text = _text(message.get("content"), where)
    if role == "assistant":
        calls = message.get("tool_calls") or []
        if not isinstance(calls, list):
            raise _wrong(f"{where}.tool_calls must be a list.", where)
        written = [_written_call(call, f"{where}.tool_calls", names) for call in calls]
        return {"role": role, "content": "\n".join(part for part in (text, *written) if part)}
    if role == "tool":
        name = names.get(str(message.get("tool_call_id")))
        return {"role": role, **({"name": name} if name else {}), "content": text}
    return {"role": role, "content": text}


def _text(content: Any, where: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, list) and all(isinstance(p, Mapping) and isinstance(p.get("text"), str) for p in content):
        return "\n".join(part["text"] for part in content)
    raise _wrong(f"{where}.content must be a text, or a list of texts: the policy reads nothing else.", where)


def _written_call(call: Any, where: str, names: dict[str, str]) -> str:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise _wrong(f"{where}: a call is an object with `function.name` and `function.arguments`.", where)
    names[str(call.get("id"))] = function["name"]
    arguments = function.get("arguments") or "{}"
    try:
        known = json.loads(arguments) if isinstance(arguments, str) else arguments
    except (ValueError, RecursionError):
        known = {"arguments": arguments}
    return write_call(function["name"], known)


def _tools(value: Any) -> tuple[Tool, ...]:
    named = isinstance(value, list) and all(
        isinstance(t, Mapping) and isinstance(t.get("function"), Mapping) and isinstance(t["function"].get("name"), str)
        for t in value
    )
    if not named:
        raise _wrong('tools must be a list of {"type": "function", "function": {"name": ...}}.', "tools")
    return tuple(dict(tool) for tool in value)


def _stops(value: Any) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or len(stops) > MOST_STOPS or not all(isinstance(s, str) and s for s in stops):
        raise _wrong(f"stop must be a text or a list of at most {MOST_STOPS} texts, none of them empty.", "stop")
    return tuple(stops)


def _says_nothing(name: str, value: Any) -> bool:
    """Whether a parameter asks for nothing. True is not 1 here, nor False 0."""
    known = any(
        value == neutral and isinstance(value, bool) == isinstance(neutral, bool) for neutral in NEUTRAL.get(name, ())
    )
    return name in NO_EFFECT or known


def _number(given: Mapping[str, Any], name: str, most: int = 10**9) -> int:
    value = given[name]
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise _wrong(f"{name}: {str(value)[:100]!r} is not a whole number from 1 to {most}.", name)
    return value


def _flag(given: Mapping[str, Any], name: str) -> bool:
    value = given.get(name, False)
    if not isinstance(value, bool):
        raise _wrong(f"{name}: {str(value)[:100]!r} is not true or false.", name)
    return value


def _wrong(message: str, param: str | None = None) -> Refused:
    return Refused(400, message, param=param)


# -- answers -----------------------------------------------------------------------------------------------------------


def split_calls(text: str) -> tuple[str, tuple[Call, ...], list[str]]:
    """A turn's text beside its calls, the calls, and what is wrong with those that cannot be read.

    Where one cannot be read the whole turn is text, as servers of models have it: the agent says what it makes of it.
    """
    found = read_calls(text)
    wrong = [call.problem for call in found if isinstance(call, Malformed)]
    if wrong or not found:
        return text, (), wrong
    beside = _CALLS_BEGIN.split(_THOUGHTS.sub("", text), maxsplit=1)[0].strip()
    return beside, tuple(call for call in found if isinstance(call, Call)), []


def message_of(answer: Answer, index: int) -> dict[str, Any]:
    """The assistant's message of a choice."""
    choice = answer.choices[index]
    message: dict[str, Any] = {"role": "assistant", "content": choice.text or (None if choice.calls else "")}
    if choice.calls:
        message["tool_calls"] = [
            {
                "id": f"call_{answer.id.removeprefix('chatcmpl-')}_{index}_{number}",
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)},
            }
            for number, call in enumerate(choice.calls)
        ]
    return message


def said_of(answer: Answer, index: int) -> Message:
    """The same message as `read_messages` reads it when the agent sends it back."""
    return _message(message_of(answer, index), "answer", {})


def to_json(request: ChatRequest, answer: Answer) -> dict[str, Any]:
    """The whole answer."""
    choices = [
        {
            "index": index,
            "message": {**message_of(answer, index), "refusal": None},
            "finish_reason": choice.finish_reason,
            "logprobs": _logprobs(choice) if request.logprobs else None,
        }
        for index, choice in enumerate(answer.choices)
    ]
    return {**_head(request, answer, "chat.completion"), "choices": choices, "usage": _usage(answer)}


def to_events(request: ChatRequest, answer: Answer) -> Iterator[dict[str, Any]]:
    """The answer as the pieces of a stream. It begins when the completion is whole: many are sampled at once."""
    head = _head(request, answer, "chat.completion.chunk")
    for index, choice in enumerate(answer.choices):
        message = message_of(answer, index)
        calls = [{"index": number, **call} for number, call in enumerate(message.pop("tool_calls", []))]
        delta = {**message, **({"tool_calls": calls} if calls else {})}
        logprobs = _logprobs(choice) if request.logprobs else None
        yield {**head, "choices": [{"index": index, "delta": delta, "finish_reason": None, "logprobs": logprobs}]}
        yield {
            **head,
            "choices": [{"index": index, "delta": {}, "finish_reason": choice.finish_reason, "logprobs": None}],
        }
    if request.include_usage:
        yield {**head, "choices": [], "usage": _usage(answer)}


def _head(request: ChatRequest, answer: Answer, kind: str) -> dict[str, Any]:
    head = {"id": answer.id, "object": kind, "created": answer.created, "model": request.model}
    return head if answer.fingerprint is None else {**head, "system_fingerprint": answer.fingerprint}


def _usage(answer: Answer) -> dict[str, int]:
    sampled = sum(len(choice.tokens) for choice in answer.choices)
    return {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": sampled,
        "total_tokens": answer.prompt_tokens + sampled,
    }


def _logprobs(choice: Choice) -> dict[str, Any]:
    content = [
        {"token": text, "logprob": nats, "bytes": list(text.encode()), "top_logprobs": []}
        for text, nats in choice.tokens
    ]
    return {"content": content, "refusal": None}


def models(names: Sequence[str] = (MODEL,)) -> dict[str, Any]:
    """The list of models."""
    data = [{"id": name, "object": "model", "created": 0, "owned_by": "fastslow"} for name in names]
    return {"object": "list", "data": data}


def same_messages(given: Sequence[Message], known: Sequence[Message]) -> bool:
    """Whether two conversations say the same; blanks around a text tell nothing, since agents trim what they keep."""
    return len(given) == len(known) and all(
        a["role"] == b["role"] and a["content"].strip() == b["content"].strip()
        for a, b in zip(given, known, strict=True)
    )
