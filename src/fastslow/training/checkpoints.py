"""When a run is saved: it notes where it stands between its steps, and a checkpoint holds that, whatever ends it."""

from dataclasses import dataclass
from typing import Any

from fastslow.errors import FastslowError, ServerError
from fastslow.rollouts.store import RolloutStore
from fastslow.runs.directory import RunDirectory
from fastslow.slow.engine import PolicyEngine
from fastslow.training.resume import write_resume


@dataclass(frozen=True)
class Mark:
    """A moment that a run can be taken up from: everything except the weights, which had `policy_version` then.

    `record` is that of a step that has begun; `closing`: its update is done, and evaluation and log are left to do.
    """

    state: dict[str, Any]
    store: RolloutStore
    positions: dict[str, int]
    policy_version: int
    record: dict[str, Any] | None = None
    closing: bool = False

    @property
    def step(self) -> int:
        """The last finished step."""
        return int(self.state["step"])


class Checkpoints:
    """Writes the newest mark of a run, on time or when an error ends it."""

    def __init__(self, run: RunDirectory, engine: PolicyEngine, resumable: int = 2, kept: int | None = None) -> None:
        self.run, self.engine, self.resumable, self.kept = run, engine, resumable, kept
        self.mark: Mark | None = None
        self._saved: Mark | None = None
        self._saved_step: int | None = None
        self._saving = False

    def restored(self, mark: Mark) -> None:
        """The run goes on from this mark, which a checkpoint holds."""
        self.mark = self._saved = mark
        self._saved_step = mark.step

    @property
    def due(self) -> bool:
        """Whether the newest mark is on no checkpoint."""
        return self.mark is not None and self._saved is not self.mark

    def save(self) -> None:
        """Write the newest mark with the weights, which are of the same moment."""
        mark = self.mark
        if mark is None:
            return
        self._saving = True
        with self.run.checkpoint(mark.step) as directory:
            self.engine.save(directory, resumable=True)
            loop = {"state": mark.state, "positions": mark.positions, "record": mark.record, "closing": mark.closing}
            write_resume(self.run, directory, mark.step, loop, mark.store.to_json())
        self.run.prune(self.resumable, self.kept)
        self._saved, self._saved_step, self._saving = mark, mark.step, False

    def rescue(self, error: BaseException, step: int) -> str:
        """Save what can be saved when an error ends the run after `step`; in words, what came of it, how to go on."""
        if isinstance(error, ServerError) and not error.reachable:
            return (
                f"The run stopped after step {step}. Bring the server back with its database and its checkpoints, "
                f"then: {self.run.way_on} ({self._since()}; --set tinker.base_url=... where the address is another)"
            )
        obstacle = self._obstacle()
        if obstacle is None and self.due:
            try:
                self.save()
            except Exception as second:  # whatever it is, the first error is the one to report
                obstacle = str(second) if isinstance(second, FastslowError) else f"{type(second).__name__}: {second}"
        if obstacle is None and self.mark is not None:
            return (
                f"The run stopped after step {self.mark.step} and was saved in "
                f"{self.run.checkpoint_dir(self.mark.step)}. Mend the cause, then go on with: {self.run.way_on}"
            )
        return (
            f"The run stopped after step {step} and was not saved there: {obstacle}. Mend the cause, then: "
            f"{self.run.way_on} ({self._since()})"
        )

    def _obstacle(self) -> str | None:
        """Why the newest mark cannot be saved; None where it can."""
        if self.mark is None:
            return "its first step had not begun"
        if self._saving:
            return "saving is what failed"
        if not self.engine.intact or self.engine.policy_version != self.mark.policy_version:
            return "the weights had moved on since"
        return None

    def _since(self) -> str:
        if self.run.latest_checkpoint() is None:
            return "there is no checkpoint yet, so it begins again"
        return f"it goes on from the checkpoint after step {self._saved_step}"
