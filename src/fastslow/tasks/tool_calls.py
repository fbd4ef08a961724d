"""Tool calls in what a model writes, in the forms that models have for them, and tools told in words.

Model text is parsed and never executed. A call that cannot be read is told back in words that say what is wrong.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastslow.types import Message, Tool

CALL = '<tool_call>{"name": "the tool\'s name", "arguments": {"an argument": "its value"}}</tool_call>'
"""The form that calls are asked for in, and that a tokenizer's own parser is translated to."""
_TAGGED = re.compile(r"<tool_call>(.*?)(?:</tool_call>|(?=<tool_call>)|\Z)", re.DOTALL)
_THOUGHTS = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_MISTRAL, _MISTRAL_ARGS, _LLAMA = "[TOOL_CALLS]", "[ARGS]", "<|python_tag|>"


@dataclass(frozen=True)
class Call:
    """A call of a tool."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Malformed:
    """What looks like a call and cannot be read. `problem` says in words why, and how a call is written."""

    problem: str


def read_calls(text: str) -> list[Call | Malformed]:
    """The calls in a model's turn, in their order; nothing where it makes none. Thoughts are left out.

    Forms: `<tool_call>{...}</tool_call>` (Hermes, Qwen), `[TOOL_CALLS][{...}]` and `[TOOL_CALLS]name[ARGS]{...}`
    (Mistral), and a turn that is one JSON object with `name` and `parameters` (Llama).
    """
    said = _THOUGHTS.sub("", text)
    if "<tool_call>" in said:
        return [call for part in _TAGGED.findall(said) for call in _from_json(part)]
    if _MISTRAL in said:
        return [call for part in said.split(_MISTRAL)[1:] for call in _from_mistral(part)]
    bare = said.replace(_LLAMA, "").strip()
    if _LLAMA in said or _is_call(bare):
        return _from_json(bare)
    return []


def write_call(name: str, arguments: Mapping[str, Any]) -> str:
    """A call in the form that `read_calls` reads first."""
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments}, ensure_ascii=False)}</tool_call>"


def tell_tools(messages: Sequence[Message], tools: Sequence[Tool]) -> list[Message]:
    """The messages, with the tools told in words at the end of the system message where a template cannot show them."""
    if not tools:
        return [dict(message) for message in messages]
    lines = [json.dumps(tool.get("function", tool), ensure_ascii=False) for tool in tools]
    words = "\n".join(
        ["You can call these tools:", *lines, f"To call one, write {CALL}", "The answer comes in the next message."]
    )
    if messages and messages[0]["role"] == "system":
        first = {**messages[0], "content": f"{messages[0]['content']}\n\n{words}"}
        return [first, *(dict(message) for message in messages[1:])]
    return [{"role": "system", "content": words}, *(dict(message) for message in messages)]


def without_tools(messages: Sequence[Message]) -> list[Message]:
    """The messages with a tool's as the user's, for templates that have no such role."""
    return [
        {"role": "user", "content": f"Result of the tool: {message['content']}"}
        if message["role"] == "tool"
        else dict(message)
        for message in messages
    ]


def _is_call(text: str) -> bool:
    """Whether a whole text is a JSON object that names a tool and its arguments; other JSON may be an answer."""
    if not (text.startswith("{") and text.endswith("}")):
        return False
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and "name" in found and ("arguments" in found or "parameters" in found)


def _from_mistral(text: str) -> list[Call | Malformed]:
    name, separator, arguments = text.strip().partition(_MISTRAL_ARGS)
    if separator:
        return _from_json(json.dumps({"name": name.strip()})[:-1] + f', "arguments": {arguments.strip() or "{}"}}}')
    return _from_json(text)


def _from_json(text: str) -> list[Call | Malformed]:
    """The call, or the list of calls, that a piece of JSON is. What follows it, as models like to add, is left out."""
    try:
        found, _ = json.JSONDecoder().raw_decode(text.strip())
    except RecursionError:
        return [_malformed("its JSON is nested too deeply")]
    except ValueError as error:
        return [_malformed(f"it is not valid JSON ({error})")]
    return [_call(item) for item in (found if isinstance(found, list) else [found])]


def _call(found: Any) -> Call | Malformed:
    if not isinstance(found, Mapping):
        return _malformed(f"it must be a JSON object, and is {type(found).__name__}")
    function = found.get("function")
    source = function if isinstance(function, Mapping) else found
    name, arguments = source.get("name"), source.get("arguments", source.get("parameters", {}))
    if not isinstance(name, str) or not name:
        return _malformed("it has no `name`")
    if isinstance(arguments, str):
        # OpenAI's form has the arguments as a text of JSON.
        try:
            arguments = json.loads(arguments or "{}")
        except (ValueError, RecursionError):
            return _malformed("its `arguments` are a text that is not valid JSON")
    if not isinstance(arguments, Mapping):
        return _malformed(f"its `arguments` must be a JSON object, and are {type(arguments).__name__}")
    return Call(name, dict(arguments))


def _malformed(problem: str) -> Malformed:
    return Malformed(f"The tool call could not be read: {problem}. Write {CALL}")
