"""The trackers that come with the package: TensorBoard, wandb and trackio. Each hears the events of a run.

All three get the numbers of every step, the config, and tables of the prompts and of kept rollouts. What exists only in
some steps (the search's counts, an evaluation's seconds) is a gap in the others, not a zero.
"""

import json
import math
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastslow.config import Config
from fastslow.redact import redact_config
from fastslow.runs.directory import write_atomically
from fastslow.runs.files import TRACKER, read_record
from fastslow.runs.metrics import REWARD_MEAN, STEP, VAL_MEAN, gaps
from fastslow.training.sheets import Cell, Sheet, flat_config, sheets_of

PROJECT = "fastslow"


class TensorBoardObserver:
    """Writes to `tensorboard/` in the run directory; a resumed run purges what lies after its checkpoint."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.writer: Any = None
        self.pending: list[Sheet] = []

    def on_event(self, kind: str, payload: Mapping[str, Any]) -> None:
        """Numbers as scalars, tables as texts, the config as hyperparameters."""
        if kind == "start":
            self._start(payload["step"])
        elif kind in ("end", "abort") and self.writer is not None:
            self.writer.close()
        self.pending += sheets_of(kind, payload)
        if kind == "step":
            for name, value in scalars(payload).items():
                self.writer.add_scalar(name, value, payload["step"])
            for sheet in self.pending:
                self.writer.add_text(sheet.name, markdown(sheet), payload["step"])
            self.pending.clear()

    def _start(self, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        directory = str(Path(self.config.output) / "tensorboard")
        self.writer = SummaryWriter(directory, purge_step=step + 1 if step else None)
        if not step:
            # The metrics are named alone: their values are the run's own scalars.
            named = dict.fromkeys((VAL_MEAN.key(k=self.config.evaluation.k), REWARD_MEAN.name), 0.0)
            for summary in hparams(flat_config(self.config.model_dump(mode="json")), named):
                self.writer.file_writer.add_summary(summary)


class WandbObserver:
    """wandb. The run's id is made once and kept in the run directory, so that a resumed run goes on as the same one."""

    package = "wandb"

    def __init__(self, config: Config) -> None:
        self.config = config
        self.client: Any = None
        self.pending: list[Sheet] = []

    def on_event(self, kind: str, payload: Mapping[str, Any]) -> None:
        """Numbers and tables of a step in one call, the config at the start."""
        if kind == "start":
            self._start(Path(payload["output"]))
        elif kind in ("end", "abort") and self.client is not None:
            self.client.finish()
        self.pending += sheets_of(kind, payload)
        if kind == "step":
            tables = {sheet.name: self._table(sheet) for sheet in self.pending}
            self.pending.clear()
            self.client.log({**scalars(payload), **tables}, step=payload["step"])

    def settings(self, output: Path, known: Mapping[str, Any]) -> dict[str, Any]:
        """What opens the client: the config's own keys, else what the run directory knows, else the environment."""
        chosen = self.config.tracking
        return {
            "project": chosen.project or known.get("project") or self._environment("PROJECT") or PROJECT,
            "name": chosen.name or known.get("name") or self._environment("NAME") or output.name,
            "group": chosen.group or known.get("group") or self._environment("RUN_GROUP"),
            "tags": list(chosen.tags) or self._tags(),
            "id": known.get("id") or uuid.uuid4().hex[:16],
        }

    def open(self, output: Path, settings: dict[str, Any], config: dict[str, Any], *, again: bool) -> Any:
        """Start the client, or go on with the run that it knows."""
        import wandb

        wandb.init(**settings, config=config, dir=str(output), resume="allow", allow_val_change=again)
        return wandb

    def _start(self, output: Path) -> None:
        path = output / TRACKER
        found = read_record(path)
        known = found if found.get("tracker") == self.package else {}
        settings = self.settings(output, known)
        config = redact_config(self.config.model_dump(mode="json"))
        self.client = self.open(output, settings, config, again=bool(known))
        if output.is_dir():
            kept = {"tracker": self.package, **{name: settings[name] for name in ("id", "project", "name", "group")}}
            write_atomically(path, json.dumps(kept, indent=2, ensure_ascii=False) + "\n")

    def _table(self, sheet: Sheet) -> Any:
        return self.client.Table(columns=list(sheet.columns), data=sheet.rows)

    def _environment(self, name: str) -> str | None:
        return os.environ.get(f"{self.package.upper()}_{name}") or None

    def _tags(self) -> list[str]:
        return [tag.strip() for tag in (self._environment("TAGS") or "").split(",") if tag.strip()]


class TrackioObserver(WandbObserver):
    """trackio has wandb's calls, but tells runs apart by their names, and has no tags: they stand in the config."""

    package = "trackio"

    def settings(self, output: Path, known: Mapping[str, Any]) -> dict[str, Any]:
        """As wandb's, with a name that no other run has."""
        found = super().settings(output, known)
        if not known:
            found["name"] = f"{found['name']}-{found['id'][:6]}"
        elif known.get("name"):
            found["name"] = known["name"]
        return found

    def open(self, output: Path, settings: dict[str, Any], config: dict[str, Any], *, again: bool) -> Any:
        """Start the client, or go on with the run of that name."""
        import trackio

        told = {name: settings[name] for name in ("project", "name", "group")}
        labels = {"tags": settings["tags"]} if settings["tags"] else {}
        trackio.init(
            **told,
            config={**config, **labels},
            resume="allow" if again else "never",
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        return trackio


def scalars(record: Mapping[str, object]) -> dict[str, float]:
    """The numbers of a metrics line, without what was not measured in a step, and without a zero that says no more."""
    missing = gaps(record)
    return {
        name: value
        for name, value in record.items()
        if isinstance(value, int | float) and name != STEP.name and name not in missing and math.isfinite(value)
    }


def markdown(sheet: Sheet) -> str:
    """A table as TensorBoard shows it: one part a row, its texts as blocks in which nothing is markup."""
    parts = []
    for row in sheet.rows:
        short = [(name, value) for name, value in zip(sheet.columns, row, strict=True) if not _is_text(value)]
        long = [(name, value) for name, value in zip(sheet.columns, row, strict=True) if _is_text(value)]
        parts.append(" · ".join(f"{name} `{_plain(value)}`" for name, value in short))
        for name, value in long:
            parts.append(f"{name}:\n\n" + "\n".join(f"    {line}" for line in str(value).split("\n")))
    return "\n\n".join(parts)


def _is_text(value: Cell) -> bool:
    return isinstance(value, str) and (len(value) > 40 or not value.replace("-", "").replace("_", "").isalnum())


def _plain(value: Cell) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
