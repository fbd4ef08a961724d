"""Components of a prompt beside `system`, opt-in: what tools say of themselves, and skills.

`tool:<name>` takes the place of that tool's description, wherever the tool is shown. `skill:<name>` is a text
that stands under the system text, or that an environment includes itself. A config names those that are to
evolve in task.seed_prompt.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from fastslow.tasks.episode import Episode
from fastslow.types import SYSTEM, Message, Prompt, Score, Tool

TOOL, SKILL = "tool:", "skill:"


def texts_of(prompt: Prompt, prefix: str) -> dict[str, str]:
    """The components of a prefix, by what follows it."""
    return {name.removeprefix(prefix): text for name, text in prompt.components if name.startswith(prefix)}


def with_skills(prompt: Prompt, skills: Mapping[str, str]) -> Prompt:
    """The prompt with the skills under its system text, each under a heading of its own name."""
    parts = [prompt.system, *(f"# {name}\n\n{text}" for name, text in sorted(skills.items()) if text.strip())]
    return Prompt.from_dict({**prompt.as_dict(), SYSTEM: "\n\n".join(part for part in parts if part.strip())})


def descriptions_of(tools: Sequence[Tool]) -> dict[str, str]:
    """The components that some tools can have, with the descriptions that they have now."""
    functions: list[Any] = [tool.get("function", tool) for tool in tools]
    return {f"{TOOL}{function['name']}": str(function.get("description", "")) for function in functions}


def described(tools: Sequence[Tool], descriptions: Mapping[str, str]) -> list[Tool]:
    """Copies of the tools, with other descriptions for those that are named."""
    made: list[Tool] = []
    for tool in tools:
        function: Any = tool.get("function", tool)
        if function["name"] in descriptions:
            function = {**function, "description": descriptions[function["name"]]}
        made.append({**tool, "function": function} if "function" in tool else function)
    return made


class Described:
    """An episode whose tools are described by the prompt."""

    def __init__(self, episode: Episode, descriptions: Mapping[str, str]) -> None:
        self.episode, self.descriptions = episode, descriptions
        self.tools: Sequence[Tool] = described(episode.tools, descriptions)

    @property
    def tool_calls(self) -> int:
        """The episode's."""
        return int(getattr(self.episode, "tool_calls", 0))

    @property
    def tool_errors(self) -> Sequence[str]:
        """The episode's."""
        return tuple(getattr(self.episode, "tool_errors", ()))

    def start(self) -> Sequence[Message]:
        """The episode's. Its tools may be known only now."""
        opening = self.episode.start()
        self.tools = described(self.episode.tools, self.descriptions)
        return opening

    def step(self, text: str) -> Sequence[Message]:
        """The episode's."""
        return self.episode.step(text)

    def score(self) -> Score:
        """The episode's."""
        return self.episode.score()

    def close(self) -> None:
        """The episode's."""
        self.episode.close()
