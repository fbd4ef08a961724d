"""The config of the task."""

from typing import Any, Literal

from fastslow.section import PositiveNumber, Section, option


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
    timeout_s: PositiveNumber | None = option(
        600.0, "for one call of the scorer; the rollout is masked after it; null: no limit", unit="seconds",
        more="A scorer that takes a whole batch has it for the batch, and then for each row alone. Environments have "
        "`episodes.step_timeout_s`. In a stream it is for the tasks that set none of their own.",
    )  # fmt: skip
    isolate: Literal["process"] | None = option(
        None, "`process`: scorer and episodes run in processes of their own", unit="a name",
        more="What ends a process (`os._exit`, a segfault), hangs in C or takes all memory then masks a rollout.",
    )  # fmt: skip
    memory_gib: PositiveNumber | None = option(
        None, "with `isolate`: address space of each of these processes; null: no limit", unit="GiB"
    )
