"""Contents stay text: what stands in a problem, a prompt or an environment's answer makes no special token.

A chat template puts contents between markers such as `<|im_start|>`, and a tokenizer reads such a marker wherever it
stands. A content that holds one could end its own message and begin another under any role. So the markers of contents
take part in the rendering as plain words, and afterwards the text is cut at the markers that the template itself wrote,
as the tokenizer would cut it, and what lies between is encoded without special tokens. Contents without markers go the
ordinary way, token by token.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import count
from typing import Any

from transformers import PreTrainedTokenizerBase

from fastslow.types import Message, Tool


class Disguise:
    """The markers of one call's contents, as words that stand in none of these contents."""

    def __init__(self, markers: "SpecialText", word: str) -> None:
        self.markers, self._word = markers, word
        self._worn = re.compile(rf"{word}(\d+)q")

    def put_on(self, value: Any) -> Any:
        """A text, or every text of a message or tool, with its markers as words."""
        if isinstance(value, str):
            return self.markers.pattern.sub(lambda found: f"{self._word}{self.markers.index[found[0]]}q", value)
        if isinstance(value, Mapping):
            return {self.put_on(key): self.put_on(item) for key, item in value.items()}
        return [self.put_on(item) for item in value] if isinstance(value, list | tuple) else value

    def take_off(self, text: str) -> str:
        """The text with its markers again."""
        return self._worn.sub(lambda found: self.markers.names[int(found[1])], text)

    def encode(self, text: str) -> tuple[int, ...]:
        """The tokens of a rendered text: the template's own markers as the tokens that they are, the rest as text."""
        tokens: list[int] = []
        for piece in re.split(f"({self.markers.pattern.pattern})", text):
            if piece in self.markers.index:
                tokens.append(self.markers.ids[piece])
            elif piece:
                tokens += self.markers.as_text(self.take_off(piece), add_special_tokens=False)
        return tuple(tokens)


class SpecialText:
    """The special tokens of a tokenizer as texts may hold them."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer

    @cached_property
    def ids(self) -> dict[str, int]:
        """Each special token's text, and its id."""
        added = self._tokenizer.added_tokens_decoder
        return {token.content: number for number, token in added.items() if token.special and token.content}

    @cached_property
    def names(self) -> list[str]:
        """The texts, longest first, so that none is found inside another."""
        return sorted(self.ids, key=lambda name: (-len(name), name))

    @cached_property
    def index(self) -> dict[str, int]:
        """Where each text stands in `names`."""
        return {name: number for number, name in enumerate(self.names)}

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """What finds them; nothing, where there are none."""
        return re.compile("|".join(map(re.escape, self.names)) or r"(?!)")

    def disguise(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> Disguise | None:
        """What hides the markers of these contents from the tokenizer; None where they hold none."""
        texts = [*_texts(list(messages)), *_texts(list(tools))]
        if not any(self.pattern.search(text) for text in texts):
            return None
        words = (f"fastslow{number}q" for number in count())
        return Disguise(self, next(word for word in words if not any(word in text for text in texts)))

    def as_text(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """The tokens of a text without special tokens; `add_special_tokens`: with those that begin or end any text."""
        return list(
            self._tokenizer(text, add_special_tokens=add_special_tokens, split_special_tokens=True)["input_ids"]
        )


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
