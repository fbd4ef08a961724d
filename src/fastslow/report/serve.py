"""`fastslow report --live`: the same page from a server on this machine alone, which tells it what is new.

Only 127.0.0.1 is listened on, and only requests that name it are answered: a page from elsewhere whose name was made to
point here (DNS rebinding) gets nothing.
"""

import hashlib
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from fastslow.errors import ConfigError, FastslowError
from fastslow.report.collect import collect
from fastslow.report.page import encode, render
from fastslow.report.thin import fit
from fastslow.runs.files import SHOWN, is_run

HOST = "127.0.0.1"
DEFAULT_PORT = 8420
IDLE_S, WHOLE_S = 10.0, 60.0
"""A connection that says nothing for so long is closed, and one that is still there after so long, whatever it says."""
MOST_CONNECTIONS = 32
"""At the same time; a browser has six. Further ones are closed at once."""


class Source:
    """The data of the page, collected anew only when a file has changed. Safe to ask from several threads."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        self._lock = threading.Lock()
        self._mark = self._fingerprint()
        self._data = fit(collect(paths))

    def latest(self) -> dict[str, Any]:
        """The newest data, with a `mark` that changes when they do. While files cannot be read, what was last known."""
        with self._lock:
            mark = self._fingerprint()
            if mark != self._mark:
                # A run that is being rewound, or replaced, is read again at the next question.
                with suppress(FastslowError, OSError):
                    self._data, self._mark = fit(collect(self.paths)), mark
            return {**self._data, "mark": self._mark}

    def _fingerprint(self) -> str:
        facts = []
        for file in self._files():
            try:
                stat = file.stat()
            except OSError:
                continue
            facts.append(f"{file}\0{stat.st_mtime_ns}\0{stat.st_size}")
        return hashlib.sha256("\n".join(facts).encode("utf-8", "replace")).hexdigest()[:16]

    def _files(self) -> Iterator[Path]:
        for path in self.paths:
            if path.is_file():
                yield path
            else:
                for pattern in SHOWN if is_run(path) else ("*.jsonl",):
                    yield from sorted(path.glob(pattern))


class Server(ThreadingHTTPServer):
    """Serves one Source on 127.0.0.1."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, source: Source, port: int) -> None:
        self.source = source
        self._open: dict[socket.socket, float] = {}
        self._open_lock = threading.Lock()
        super().__init__((HOST, port), _Handler)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_address[1]}/"

    def process_request(self, request: Any, client_address: Any) -> None:
        """As the base class does, where there is room for one connection more."""
        with self._open_lock:
            room = len(self._open) < MOST_CONNECTIONS
            if room:
                self._open[request] = time.monotonic()
        if room:
            super().process_request(request, client_address)
        else:
            super().shutdown_request(request)

    def shutdown_request(self, request: Any) -> None:
        """As the base class does; the connection makes room."""
        with self._open_lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Called between two connections: ends those that have taken their time."""
        with self._open_lock:
            late = [each for each, since in self._open.items() if time.monotonic() - since > WHOLE_S]
        for each in late:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle of a reply is no error; anything else is shown."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    timeout = IDLE_S

    def do_GET(self) -> None:
        port = self.server.server_address[1]
        if self.headers.get("Host") not in (f"{HOST}:{port}", f"localhost:{port}"):
            self._reply(
                HTTPStatus.MISDIRECTED_REQUEST, "text/plain", f"This server answers to {self.server.url} only.\n"
            )
            return
        try:
            address = urlsplit(self.path)
        except ValueError:  # such as http://[
            self._reply(HTTPStatus.BAD_REQUEST, "text/plain", "This is no address.\n")
            return
        if address.path == "/":
            self._reply(HTTPStatus.OK, "text/html", render(self.server.source.latest(), live=True))
        elif address.path == "/data.json":
            data = self.server.source.latest()
            if parse_qs(address.query).get("mark") == [data["mark"]]:
                self._reply(HTTPStatus.NO_CONTENT, None, "")
            else:
                self._reply(HTTPStatus.OK, "application/json", encode(data))
        else:
            self._reply(HTTPStatus.NOT_FOUND, "text/plain", "There is only the report, at /.\n")

    def _reply(self, status: HTTPStatus, kind: str | None, text: str) -> None:
        body = text.encode("utf-8", "replace")
        self.send_response(status)
        if kind is not None:
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "DENY")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """One line for each question every two seconds would hide everything else."""


def make_server(paths: Sequence[Path], port: int) -> Server:
    """Raises ConfigError for paths that are no runs or experiments, and for a port that cannot be had."""
    if not 0 <= port <= 65535:
        raise ConfigError(f"--port: {port} is no port: take a number from 1 to 65535, or 0 for any free one")
    source = Source(paths)
    try:
        return Server(source, port)
    except OSError as error:
        raise ConfigError(
            f"--port: {port} cannot be had ({error.strerror}): give another one, or 0 for any free one"
        ) from error


def serve(paths: Sequence[Path], port: int) -> int:
    """Serve until Ctrl-C."""
    with make_server(paths, port) as server:
        print(f"the report is at {server.url} and follows its runs; Ctrl-C ends it", flush=True)
        try:
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            print("\nended")
    return 0
