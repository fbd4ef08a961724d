"""The config of the task."""

from typing import Any

from fastslow.section import Section, option


class TaskConfig(Section):
    """What is trained on; see [tasks.md](tasks.md)."""

    name: str = option(
        meaning="a built-in task, `reasoning_gym:<generator>`, or `package.module:Class`",
        unit="a name",
        source="settings",
    )
    options: dict[str, Any] = option(
        make=dict,
        meaning="the task's own; they go to its constructor",
        unit="names to values",
        source="[tasks.md](tasks.md)",
    )
    seed_prompt: str | dict[str, str | None] | None = option(
        None,
        "a text, or component names to texts; null: the task's own",
        unit="text",
        more="`tool:<name>` and `skill:<name>` may be named as well: [episodes.md](episodes.md).",
    )
