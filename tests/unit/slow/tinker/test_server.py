"""Calls of the SDK that a run gives up on."""

import threading

import pytest

from fastslow.errors import ServerError
from fastslow.slow.tinker import server
from fastslow.slow.tinker.settings import TinkerConfig


def test_a_call_that_was_given_up_may_still_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "POLL_S", 0.05)
    started, release, ended = threading.Event(), threading.Event(), threading.Event()
    raised: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", raised.append)

    def call() -> None:
        started.set()
        threads.append(threading.current_thread())
        release.wait(10)
        ended.set()

    threads: list[threading.Thread] = []
    client = server.Server.__new__(server.Server)
    client.config = TinkerConfig(backend="jax", base_url="http://127.0.0.1:9", outage_s=0.01)
    with pytest.raises(ServerError, match="has not been reachable"):
        client.call(call)
    assert started.is_set() and not ended.is_set()
    release.set()
    threads[0].join(10)
    assert ended.is_set() and not raised
