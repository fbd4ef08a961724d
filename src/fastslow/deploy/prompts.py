"""Which prompt a question gets, and how it is put in: as in training, and never twice."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from fastslow.tasks.base import SPLITS, Task, with_system_prompt
from fastslow.tasks.components import SKILL, TOOL, described, texts_of, with_skills
from fastslow.text import printable
from fastslow.types import SYSTEM, Message, Problem, Prompt, Tool

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prompts:
    """The prompts of a trained model: `best`, and by kind of problems the hash of the member for each.

    `task` tells kinds of questions and places prompts; None: the best prompt answers, as a system message.
    """

    best: Prompt
    members: Sequence[Prompt] = ()
    by_kind: Mapping[str, str] = field(default_factory=dict)
    task: Task | None = None

    @cached_property
    def kinds(self) -> dict[str, Prompt]:
        """The prompt of each kind that has one."""
        known = {member.hash: member for member in self.members}
        return {kind: known[hash_] for kind, hash_ in self.by_kind.items() if hash_ in known}

    def kind_of(self, messages: Sequence[Message]) -> str | None:
        """The kind of a conversation's first question, where there are several and a task can tell; otherwise None."""
        if self.task is None or len(set(self.kinds.values())) < 2:
            return None
        asked = [message for message in opening_of(messages) if message["role"] != "system"]
        found = self._known_kinds.get(_key(asked))
        if found is None:
            try:
                found = self.task.kind_of(asked)
            except Exception as error:  # a task's own code, on a question that may be anything
                logger.warning("the task could not tell the kind of a question: %s", printable(str(error)))
        return found if found in self.kinds else None

    def prompt_for(self, kind: str | None) -> Prompt:
        """The prompt for a kind; None: the best one."""
        return self.best if kind is None else self.kinds[kind]

    def place(self, messages: Sequence[Message], prompt: Prompt, kind: str | None) -> tuple[Message, ...]:
        """The conversation under a prompt. A system message of the client's own comes after it, as a problem's does;
        one that begins with the prompt already stays as it is.
        """
        first = messages[0]
        if first["role"] == "system" and prompt.system and first["content"].startswith(prompt.system):
            return tuple(messages)
        opening = opening_of(messages)
        return (*self._placed(opening, prompt, kind or ""), *messages[len(opening) :])

    def tools(self, tools: Sequence[Tool], prompt: Prompt) -> tuple[Tool, ...]:
        """The client's tools, with the descriptions that the prompt has for some."""
        descriptions = texts_of(prompt, TOOL)
        return tuple(described(tools, descriptions)) if descriptions else tuple(tools)

    def _placed(self, opening: Sequence[Message], prompt: Prompt, kind: str) -> tuple[Message, ...]:
        if self.task is not None:
            try:
                return tuple(self.task.messages(Problem("served", tuple(opening), {}, kind), prompt))
            except Exception as error:  # a task that places by what its own problems hold
                logger.debug("the task could not place a prompt: %s", error)
        skilled = with_skills(prompt, texts_of(prompt, SKILL))
        return with_system_prompt(opening, skilled.as_dict().get(SYSTEM, ""))

    @cached_property
    def _known_kinds(self) -> dict[str, str]:
        """The kinds of the task's own problems, by their questions."""
        found: dict[str, str] = {}
        for split in SPLITS if self.task is not None else ():
            for problem in self.task.problems(split) if self.task is not None else ():
                found[_key([message for message in problem.messages if message["role"] != "system"])] = problem.kind
        return found


def opening_of(messages: Sequence[Message]) -> Sequence[Message]:
    """What a conversation begins with, up to the first answer."""
    end = next((index for index, message in enumerate(messages) if message["role"] == "assistant"), len(messages))
    return messages[:end]


def _key(messages: Sequence[Message]) -> str:
    return json.dumps([[message["role"], message["content"].strip()] for message in messages])
