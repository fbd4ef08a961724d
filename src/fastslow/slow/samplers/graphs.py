"""A decoding step captured once and replayed: hundreds of small kernels for the price of one launch.

Capture needs a step whose shapes and addresses never change, which never looks at a number. Where a model's forward
pass is not like that (experts chosen on the host, rotary factors that depend on the longest position), capture fails,
and the step goes on as it is, with the reason said once.
"""

import logging
from collections.abc import Callable, Hashable
from typing import Protocol

import torch

logger = logging.getLogger(__name__)

Step = Callable[[], None]


class Capture(Protocol):
    """How a step is recorded. `CudaCapture` is the real one."""

    def warm_up(self, step: Step) -> None:
        """Do the step once as it is: whatever a library sets up at its first call is set up now."""
        ...

    def capture(self, step: Step) -> Step:
        """What repeats the step, on the same tensors. Recording does nothing to them. Raises what the step raises."""
        ...

    def reset(self) -> None:
        """Every recording has been dropped."""
        ...


class CudaCapture:
    """CUDA graphs that share one pool of memory, since never two of them run at a time."""

    def __init__(self) -> None:
        self.reset()
        self.stream = torch.cuda.Stream()

    def warm_up(self, step: Step) -> None:
        """As `Capture.warm_up`, on the stream that records: libraries keep their workspaces by stream."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            step()
        torch.cuda.current_stream().wait_stream(self.stream)

    def capture(self, step: Step) -> Step:
        """As `Capture.capture`."""
        graph = torch.cuda.CUDAGraph()
        # What other threads do on the GPU meanwhile is none of the recording's business.
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"):
            step()
        return graph.replay

    def reset(self) -> None:
        """As `Capture.reset`: a pool that no graph holds any more cannot be shared again."""
        self.pool = torch.cuda.graph_pool_handle()


class Replays:
    """Runs a step by its recording where there is one. The first step of each key is done as it is, then recorded.

    `reason` says why nothing is recorded any more; None where recording works or was not asked for.
    """

    def __init__(self, capture: Capture | None) -> None:
        self.capture = capture
        self.reason: str | None = None
        self.captured = self.replayed = 0
        self.proven = False
        self._recorded: dict[Hashable, Step] = {}
        self._warm: set[Hashable] = set()

    def run(self, key: Hashable, step: Step) -> None:
        """Do the step. Equal keys must mean equal shapes and addresses."""
        if self.capture is None:
            step()
        elif key in self._recorded:
            self._recorded[key]()
            self.replayed += 1
        elif key not in self._warm:
            self._warm.add(key)
            self.capture.warm_up(step)
        elif self._record(key, step):
            self.run(key, step)
        else:
            step()

    def to_prove(self, key: Hashable) -> bool:
        """Whether the step would be replayed, has been before, and no replay has been compared with the step yet."""
        return not self.proven and self.replayed > 0 and key in self._recorded

    def give_up(self, reason: str) -> None:
        """From now on steps are done as they are; said once."""
        self.reason, self.capture = reason, None
        self._recorded.clear()
        self._warm.clear()
        logger.warning("the decoding step is not captured as a CUDA graph, so sampling is slower: %s", reason)

    def forget(self) -> None:
        """Drop all recordings: buffers have moved."""
        self._recorded.clear()
        self._warm.clear()
        if self.capture is not None:
            self.capture.reset()

    def _record(self, key: Hashable, step: Step) -> bool:
        assert self.capture is not None
        try:
            self._recorded[key] = self.capture.capture(step)
        except Exception as error:  # whatever a foreign model raises while it is recorded, it is run as it is
            self.give_up(f"{type(error).__name__}: {(str(error) or 'no message').splitlines()[0]}")
            return False
        self.captured += 1
        return True
