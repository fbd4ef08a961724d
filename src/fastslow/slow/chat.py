"""From chat messages to context tokens: with a chat template, without a system role, or without any template.

An episode's next context is made without rendering anew what was sampled: the tokens so far, then those of what the
environment said, which come from the difference of two renderings (as in TRL's `GRPOTrainer._get_tool_suffix_ids`).
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from typing import Any

from transformers import PreTrainedTokenizerBase

from fastslow.slow.engine import TokenSequence
from fastslow.slow.special_text import Disguise, SpecialText
from fastslow.tasks.tool_calls import tell_tools, without_tools, write_call
from fastslow.types import Message, Tool

logger = logging.getLogger(__name__)

Tools = Sequence[Tool]
TOGETHER = 512
"""Texts that a tokenizer gets at once, where they are many."""
PROBE = "fastslow-probe"
PROBE_TOOL = {
    "type": "function",
    "function": {
        "name": PROBE,
        "description": "probe",
        "parameters": {"type": "object", "properties": {}, "required": []},
    },
}
ASKED: Message = {"role": "user", "content": "question"}
ANSWERED: Message = {"role": "assistant", "content": PROBE}


class ChatRenderer:
    """Renders messages with the tokenizer's chat template, generation prompt included.

    Without a system role the system text goes in front of the first user message. Without a template the contents are
    joined by blank lines: a plain text for the model to continue. A template that shows no tools has them told in
    words. Contents stay text (`special_text.py`), unless `parse_special`: then a special token in a content is one.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template_kwargs: dict[str, Any] | None = None,
        *,
        parse_special: bool = False,
    ) -> None:
        self.tokenizer = tokenizer
        self._markers = None if parse_special else SpecialText(tokenizer)
        self.template_kwargs = dict(template_kwargs or {})
        self.has_template = bool(tokenizer.chat_template)
        self.has_system_role = self.has_template and self._keeps_system_text()

    def encode(self, messages: Sequence[Message], tools: Tools = ()) -> tuple[int, ...]:
        """Context tokens of the messages and the tools."""
        disguise = self._disguise(messages, tools)
        if disguise is not None:
            messages, tools = disguise.put_on(messages), disguise.put_on(tools)
        text = self._text(messages, tools)
        if self.has_template:
            return self._tokens(text, disguise)
        if disguise is not None:
            return tuple(disguise.markers.as_text(disguise.take_off(text), add_special_tokens=True))
        return tuple(self.tokenizer(text)["input_ids"])

    def count(self, contexts: Iterable[tuple[Sequence[Message], Tools]]) -> Iterator[int]:
        """The number of tokens of each context: tokenizers take many texts at a time in a fraction of the time."""
        waiting = iter(contexts)
        while some := list(islice(waiting, TOGETHER)):
            disguises = [self._disguise(*context) for context in some]
            texts = [
                self._text(*context) for context, disguise in zip(some, disguises, strict=True) if disguise is None
            ]
            plain = iter(self.tokenizer(texts, add_special_tokens=not self.has_template)["input_ids"] if texts else ())
            for context, disguise in zip(some, disguises, strict=True):
                yield len(next(plain) if disguise is None else self.encode(*context))

    def extend(
        self, last: TokenSequence, conversation: Sequence[Message], said: Sequence[Message], tools: Tools = ()
    ) -> tuple[int, ...]:
        """As `Chat.extend`."""
        plain = (conversation, said, tools)
        disguise = self._disguise([*conversation, *said], tools)
        if disguise is not None:
            conversation, said, tools = (disguise.put_on(each) for each in plain)
        follows = self._following(said, tools)
        before, whole = (self._text(messages, tools) for messages in (conversation[:-1], [*conversation, *said]))
        # Templates trim what they render, so that blanks tell nothing.
        if _squeezed(whole) != _squeezed(f"{before}{conversation[-1]['content']}{follows}"):
            return self.encode([*plain[0], *plain[1]], plain[2])
        added = self._tokens(follows, disguise)
        # The policy has written the token that ends its turn, unless it stopped with another one.
        ended = bool(added) and last.completion_tokens[-1:] == added[:1]
        return (*last.context_tokens, *last.completion_tokens, *added[1 if ended else 0 :])

    def read(self, context_tokens: Sequence[int], tokens: Sequence[int], tools: Tools = ()) -> str:
        """As `Chat.read`: the tokenizer's own parser finds the calls where it has one and there are tools."""
        end = len(tokens)
        while end and tokens[end - 1] in self._special:
            end -= 1
        text = str(self.tokenizer.decode(list(tokens[:end]), skip_special_tokens=False))
        if not tools or getattr(self.tokenizer, "response_template", None) is None:
            return text
        try:
            message = self.tokenizer.parse_response(
                list(tokens), prefix=list(context_tokens), tools=[dict(tool) for tool in tools]
            )
        except Exception as error:  # a parser's own code, on a text that may be anything
            logger.debug("the tokenizer could not parse a turn: %s", error)
            return text
        return _canonical(message) or text

    @cached_property
    def shows_tools(self) -> bool:
        """Whether the template shows tools to the model."""
        return self.has_template and self._keeps(PROBE, [ASKED], [PROBE_TOOL])

    @cached_property
    def has_tool_role(self) -> bool:
        """Whether the template knows messages of a tool."""
        said: list[Message] = [ASKED, {"role": "assistant", "content": "x"}, {"role": "tool", "content": PROBE}]
        return self.has_template and self._keeps(PROBE, said)

    # -- inside --------------------------------------------------------------------------------------------------------

    def _text(self, messages: Sequence[Message], tools: Tools = ()) -> str:
        """The text of a context, as the template has it or in its place."""
        shown = tools if tools and self.shows_tools else ()
        told = messages if shown or not tools else tell_tools(messages, tools)
        if any(message["role"] == "tool" for message in told) and not self.has_tool_role:
            told = without_tools(told)
        if not self.has_template:
            return "".join(f"{message['content']}\n\n" for message in told)
        return self._render(told if self.has_system_role else fold_system(told), shown)

    def _following(self, said: Sequence[Message], tools: Tools) -> str:
        """The text between the end of what the policy wrote and the end of a context with the environment's answer."""
        return self._text([ASKED, ANSWERED, *said], tools).partition(PROBE)[2]

    def _disguise(self, messages: Sequence[Message], tools: Tools) -> Disguise | None:
        return None if self._markers is None else self._markers.disguise(messages, tools)

    def _tokens(self, text: str, disguise: Disguise | None = None) -> tuple[int, ...]:
        if disguise is not None:
            return disguise.encode(text)
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    @cached_property
    def _special(self) -> frozenset[int]:
        return frozenset(self.tokenizer.all_special_ids)

    def _render(self, messages: Sequence[Message], tools: Tools = ()) -> str:
        plain = [dict(message) for message in messages]
        shown: dict[str, Any] = {"tools": [dict(tool) for tool in tools]} if tools else {}
        rendered = self.tokenizer.apply_chat_template(
            plain, tokenize=False, add_generation_prompt=True, **shown, **self.template_kwargs
        )
        return str(rendered)

    def _keeps_system_text(self) -> bool:
        probe = "fastslow-system-probe"
        return self._keeps(probe, [{"role": "system", "content": probe}, ASKED])

    def _keeps(self, probe: str, messages: Sequence[Message], tools: Tools = ()) -> bool:
        try:
            return probe in self._render(messages, tools)
        except Exception:  # templates report an unsupported role by raising whatever they like
            return False


def fold_system(messages: Sequence[Message]) -> list[Message]:
    """A copy with the system text put in front of the first message that follows it."""
    if not messages or messages[0]["role"] != "system":
        return [dict(message) for message in messages]
    system, *rest = messages
    if not rest:
        return [{"role": "user", "content": system["content"]}]
    first = {**rest[0], "content": f"{system['content']}\n\n{rest[0]['content']}"}
    return [first, *(dict(message) for message in rest[1:])]


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _canonical(message: Mapping[str, Any]) -> str:
    """A parsed message as a text, its calls in the form that `read_calls` knows."""
    parts = [str(message.get("content") or "")]
    for call in message.get("tool_calls") or ():
        function = call.get("function", call)
        parts.append(write_call(str(function.get("name", "")), function.get("arguments") or {}))
    return "\n".join(part for part in parts if part)
