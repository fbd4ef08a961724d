"""When a step is done, recorded and replayed; and how CUDA graphs are asked for, on stand-ins for torch.cuda."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from fastslow.slow.samplers.graphs import CudaCapture, Replays
from recording import CpuCapture


class Counter:
    """A step that adds one to a tensor."""

    def __init__(self) -> None:
        self.value = torch.zeros(())
        self.done = 0

    def __call__(self) -> None:
        self.done += 1
        self.value.add_(1)


def test_the_first_step_is_done_the_second_is_recorded_and_the_rest_replayed() -> None:
    capture, step = CpuCapture(), Counter()
    replays = Replays(capture)
    for _ in range(5):
        replays.run("shape", step)
    assert int(step.value) == 5
    assert step.done == 2  # once to warm up, once to record; recording leaves the tensor as it was
    assert (capture.warmed, replays.captured, replays.replayed) == (1, 1, 4)
    replays.run("other shape", step)
    assert capture.warmed == 2 and int(step.value) == 6


def test_recordings_are_forgotten_when_buffers_move() -> None:
    capture, step = CpuCapture(), Counter()
    replays = Replays(capture)
    for _ in range(3):
        replays.run("shape", step)
    assert replays.to_prove("shape")
    replays.forget()
    assert capture.resets == 1 and not replays.to_prove("shape")
    replays.run("shape", step)
    assert capture.warmed == 2 and int(step.value) == 4


def test_without_a_capture_every_step_is_done() -> None:
    replays, step = Replays(None), Counter()
    for _ in range(3):
        replays.run("shape", step)
    replays.forget()
    assert step.done == 3 and replays.reason is None


def test_a_replay_knows_tensors_and_no_numbers() -> None:
    """The stand-in does what a graph does, so that tests on it mean something."""
    number, seen = [0], torch.zeros(2)

    def step() -> None:
        number[0] += 1
        seen[0].add_(1)
        seen[1].fill_(number[0])

    replay = CpuCapture().capture(step)
    assert seen.tolist() == [0, 0]
    for _ in range(3):
        replay()
    assert seen.tolist() == [3, 1]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What torch.cuda was asked for, in order."""
    found: list[Any] = []

    class Stream:
        def __init__(self, name: str = "side") -> None:
            self.name = name

        def wait_stream(self, other: "Stream") -> None:
            found.append(f"{self.name} waits for {other.name}")

    class Graph:
        def replay(self) -> None:
            found.append("replay")

    @contextlib.contextmanager
    def on(stream: Stream) -> Iterator[None]:
        found.append(f"on {stream.name}")
        yield
        found.append(f"off {stream.name}")

    @contextlib.contextmanager
    def graph(graph: Graph, pool: Any, stream: Stream, capture_error_mode: str) -> Iterator[None]:
        found.append(("capture", pool, stream.name, capture_error_mode))
        yield

    pools = iter(range(10))
    main = Stream("main")
    for name, value in {
        "Stream": Stream, "CUDAGraph": Graph, "stream": on, "graph": graph, "current_stream": lambda: main,
        "graph_pool_handle": lambda: next(pools),
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, value)
    return found


def test_cuda_graphs_share_a_pool_until_all_are_dropped(calls: list[Any]) -> None:
    def step_of(name: str) -> Callable[[], None]:
        return lambda: calls.append(name)

    capture = CudaCapture()
    capture.warm_up(step_of("warm"))
    assert calls == ["side waits for main", "on side", "warm", "off side", "main waits for side"]
    calls.clear()
    replay = capture.capture(step_of("step"))
    capture.capture(step_of("another"))
    assert calls == [("capture", 0, "side", "thread_local"), "step", ("capture", 0, "side", "thread_local"), "another"]
    replay()
    assert calls[-1] == "replay"
    capture.reset()
    capture.capture(step_of("later"))
    assert calls[-2] == ("capture", 1, "side", "thread_local")
