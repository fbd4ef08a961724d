"""From chat messages to context tokens: with a chat template, without a system role, or without any template."""

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from fastslow.types import Message


class ChatRenderer:
    """Renders messages with the tokenizer's chat template, generation prompt included.

    Without a system role the system text goes in front of the first user message. Without a template the contents are
    joined by blank lines: a plain text for the model to continue.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template_kwargs: dict[str, Any] | None = None) -> None:
        self.tokenizer = tokenizer
        self.template_kwargs = dict(template_kwargs or {})
        self.has_template = bool(tokenizer.chat_template)
        self.has_system_role = self.has_template and self._keeps_system_text()

    def encode(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Context tokens of the messages."""
        if not self.has_template:
            text = "".join(f"{message['content']}\n\n" for message in messages)
            return tuple(self.tokenizer(text)["input_ids"])
        text = self._render(messages if self.has_system_role else fold_system(messages))
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _render(self, messages: Sequence[Message]) -> str:
        plain = [dict(message) for message in messages]
        rendered = self.tokenizer.apply_chat_template(
            plain, tokenize=False, add_generation_prompt=True, **self.template_kwargs
        )
        return str(rendered)

    def _keeps_system_text(self) -> bool:
        probe = "fastslow-system-probe"
        try:
            return probe in self._render(
                [{"role": "system", "content": probe}, {"role": "user", "content": "question"}]
            )
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
