"""The live server: this machine alone, nothing cached, new data when a file has changed."""

import contextlib
import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastslow.errors import ConfigError
from fastslow.report.serve import Server, make_server

from commands import command
from report_runs import make_run, metrics_line, write_lines


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", steps=2)


@pytest.fixture
def server(run: Path) -> Iterator[Server]:
    with make_server([run], 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def get(server: Server, path: str, host: str | None = None) -> tuple[http.client.HTTPResponse, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=30)
    connection.request("GET", path, headers={"Host": host} if host else {})
    reply = connection.getresponse()
    return reply, reply.read().decode()


def test_the_page_is_not_cached_and_may_ask_its_own_server(server: Server) -> None:
    reply, page = get(server, "/")
    assert (reply.status, reply.getheader("Cache-Control"), reply.getheader("X-Frame-Options")) == (
        200,
        "no-store",
        "DENY",
    )
    assert "connect-src 'self'" in page
    assert 'data-live="true"' in page


def test_requests_that_name_this_machine_are_answered(server: Server) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert get(server, "/", f"localhost:{server.server_address[1]}")[0].status == 200


@pytest.mark.parametrize(
    "host", ["attacker.example:{port}", "127.0.0.1", "127.0.0.1:{port}.attacker.example", "0.0.0.0:{port}"]
)
def test_requests_that_name_another_machine_are_refused(server: Server, host: str) -> None:
    reply, text = get(server, "/data.json", host.format(port=server.server_address[1]))
    assert reply.status == 421
    assert "runs" not in text


def test_an_address_that_is_none_is_answered_as_such(server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=30)
    connection.putrequest("GET", "http://[", skip_host=True)
    connection.putheader("Host", f"127.0.0.1:{server.server_address[1]}")
    connection.endheaders()
    assert connection.getresponse().status == 400


def test_data_come_when_they_are_new(server: Server, run: Path) -> None:
    first = json.loads(get(server, "/data.json")[1])
    assert get(server, f"/data.json?mark={first['mark']}")[0].status == 204
    write_lines(run / "metrics.jsonl", [metrics_line(step) for step in range(4)], '{"step": 4')
    reply, text = get(server, f"/data.json?mark={first['mark']}")
    assert (reply.status, reply.getheader("Cache-Control")) == (200, "no-store")
    assert json.loads(text)["runs"][0]["totals"]["steps"] == 3


def test_a_run_that_is_broken_for_a_moment_shows_what_was_last_known(server: Server, run: Path) -> None:
    first = json.loads(get(server, "/data.json")[1])
    (run / "metrics.jsonl").write_text("half a line\n", encoding="utf-8")
    assert get(server, f"/data.json?mark={first['mark']}")[0].status == 204


@pytest.mark.parametrize("path", ["/etc/passwd", "/../config.yaml", "/assets/page.html"])
def test_there_is_nothing_but_the_report(server: Server, path: str) -> None:
    assert get(server, path)[0].status == 404


def test_a_port_that_is_taken_is_named(server: Server, run: Path) -> None:
    port = server.server_address[1]
    with pytest.raises(ConfigError, match=rf"--port: {port} cannot be had .*: give another one, or 0"):
        make_server([run], port)


def test_ctrl_c_ends_the_server_without_a_traceback(run: Path) -> None:
    process = command("report", "--live", "--port", "0", run)
    try:
        deadline = time.monotonic() + 60
        while (address := re.search(r"http://127\.0\.0\.1:(\d+)/", process.out)) is None:
            assert time.monotonic() < deadline and process.process.is_alive(), process.out
            time.sleep(0.01)
        connection = http.client.HTTPConnection("127.0.0.1", int(address[1]), timeout=30)
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
        process.interrupt()
        code, said, errors = process.end(30)
    finally:
        process.process.kill()
    assert (code, said.partition("\n")[2].strip(), errors) == (0, "ended", "")


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.server_address[1]), timeout=10)


def test_a_connection_that_says_nothing_is_closed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastslow.report.serve._Handler.timeout", 0.2)
    with connect(server) as idle:
        assert idle.recv(1) == b""


def test_a_connection_that_drips_is_closed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastslow.report.serve.WHOLE_S", 0.3)
    with connect(server) as slow, pytest.raises(OSError):
        slow.settimeout(0.01)
        for _ in range(500):
            slow.sendall(b"a")
            with contextlib.suppress(TimeoutError):
                if slow.recv(1) == b"":
                    raise OSError("closed")
            time.sleep(0.01)


def test_no_more_threads_than_connections_that_are_allowed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastslow.report.serve.MOST_CONNECTIONS", 4)
    before = threading.active_count()
    held = [connect(server) for _ in range(20)]
    try:
        refused = [each for each in held[4:] if each.recv(1) == b""]
        assert len(refused) == 16
        assert threading.active_count() <= before + 4
    finally:
        for each in held:
            each.close()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:  # what was held has made room again
        with contextlib.suppress(OSError, http.client.HTTPException):
            if get(server, "/data.json")[0].status == 200:
                return
        time.sleep(0.02)
    pytest.fail("the server answers no more")


def test_a_run_whose_files_become_nonsense_keeps_the_page_as_it_was(server: Server, run: Path) -> None:
    before = json.loads(get(server, "/data.json")[1])
    write_lines(run / "prompts.jsonl", [{"components": 5}])
    after = json.loads(get(server, "/data.json")[1])
    assert after["runs"] == before["runs"]
