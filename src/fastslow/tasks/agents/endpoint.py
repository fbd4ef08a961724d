"""A server on this machine alone that answers chat completions of agents, as OpenAI's clients expect them.

Only 127.0.0.1 is listened on, and only requests that name it are answered: a page from elsewhere whose name was made to
point here (DNS rebinding) gets nothing. Each episode has a random key, which is never written down.
"""

import json
import logging
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from fastslow.tasks.agents.chat_api import ChatRequest, Refused, to_events, to_json
from fastslow.tasks.agents.session import AgentSession

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
CHAT, MODELS = "/v1/chat/completions", "/v1/models"
MAX_CONNECTIONS = 4096
READ_TIMEOUT_S = 60.0
POLL_S = 0.01
"""How soon the server hears that it is to end."""
UNKNOWN_KEY_DELAY_S = 0.05
"""How long a request with a key that is not known waits for its error: guessing goes slowly."""


class Endpoint(ThreadingHTTPServer):
    """Serves the sessions that it is given, each under its key. Use it as a context manager."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 1024

    limit_name = "task.options.max_request_bytes"
    """What says how large a request may be."""

    def __init__(self, max_request_bytes: int, port: int = 0) -> None:
        self.max_request_bytes = max_request_bytes
        self.sessions: dict[str, AgentSession] = {}
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__((HOST, port), _Handler)
        self._thread = threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": POLL_S}, daemon=True, name="agents' endpoint"
        )

    def __enter__(self) -> "Endpoint":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for session in self.sessions.values():
            session.close()
        self.shutdown()
        self.server_close()
        late = sum(session.late for session in self.sessions.values())
        if late:
            logger.warning("agents: %d requests came after the end of their episodes, and were refused", late)

    @property
    def base_url(self) -> str:
        """What an OpenAI client takes as its `base_url`."""
        return f"http://{HOST}:{self.server_address[1]}/v1"

    def add(self, session: AgentSession) -> None:
        """Serve a session from now on."""
        self.sessions[session.key] = session

    def session_of(self, key: str) -> AgentSession | None:
        """The session that a key opens; `key` is empty where a request has none."""
        return self.sessions.get(key)

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread for the connection, while there is a place."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and give the place back."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """An agent that goes away in the middle of a reply is no error; anything else is shown."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: Endpoint
    protocol_version = "HTTP/1.1"
    timeout = READ_TIMEOUT_S

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def _answer(self, method: str) -> None:
        session = None
        try:
            self._check_host()
            session = self._session()
            path = urlsplit(self.path).path
            if (method, path) == ("GET", MODELS):
                session.check_open()
                self._send(200, session.models())
            elif (method, path) == ("POST", CHAT):
                request = session.read(self._body(session))
                self._send_answer(request, session)
            elif path in (CHAT, MODELS):
                raise Refused(405, f"{path} does not take {method}.")
            else:
                raise Refused(404, f"There is no {path[:200]}: only {CHAT} and {MODELS} are served.", code="not_found")
        except Refused as refusal:
            if session is not None and refusal.status != 429:
                session.count_refusal()
            self._send(refusal.status, refusal.to_json(), retry=refusal.retry)

    def _check_host(self) -> None:
        port = self.server.server_address[1]
        if self.headers.get("Host") not in (f"{HOST}:{port}", f"localhost:{port}"):
            raise Refused(421, f"This server answers to {self.server.base_url} only.")
        if self.headers.get("Origin", f"http://{HOST}:{port}") not in (
            f"http://{HOST}:{port}",
            f"http://localhost:{port}",
        ):
            # A page from elsewhere could send what it may not read the answer to.
            raise Refused(403, "Pages from elsewhere get no answer.")

    def _session(self) -> AgentSession:
        scheme, _, key = self.headers.get("Authorization", "").partition(" ")
        session = self.server.session_of(key.strip() if scheme.lower() == "bearer" else "")
        if session is None:
            time.sleep(UNKNOWN_KEY_DELAY_S)
            raise Refused(401, "The key is not known here: use the one that was given.", code="invalid_api_key")
        return session

    def _body(self, session: AgentSession) -> Any:
        """The JSON of a request. Raises Refused."""
        try:
            length = int(self.headers.get("Content-Length", ""))
        except ValueError:
            raise Refused(411, "A Content-Length is needed.") from None
        most = self.server.max_request_bytes
        if not 0 <= length <= most:
            self._discard(min(length, 16 * most))
            raise Refused(413, f"The request has {length} bytes, more than {self.server.limit_name} = {most}.")
        text = self.rfile.read(length).decode("utf-8", "replace")
        if session.key and session.key in text:
            # It would be written into the run's rollouts.
            raise Refused(400, "The request's body holds the episode's key: keep it out of messages.")
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise Refused(400, "The body is not JSON.") from None

    def _discard(self, length: int) -> None:
        """Read what is not wanted: a client that still writes would not see the reply."""
        while length > 0 and (read := len(self.rfile.read(min(length, 1 << 16)))):
            length -= read

    def _send_answer(self, request: ChatRequest, session: AgentSession) -> None:
        answer = session.ask(request)
        if not request.stream:
            self._send(200, to_json(request, answer))
            return
        self._head(200, "text/event-stream", None)
        for event in to_events(request, answer):
            self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")

    def _send(self, status: int, value: Any, *, retry: bool = False) -> None:
        body = json.dumps(value).encode()
        self._head(status, "application/json", len(body), retry=retry)
        self.wfile.write(body)

    def _head(self, status: int, kind: str, length: int | None, *, retry: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        if length is not None:
            self.send_header("Content-Length", str(length))
        if status >= 400:
            # OpenAI's clients go by it.
            self.send_header("x-should-retry", "true" if retry else "false")
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        # Threads must not wait for clients that will not ask again.
        self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: a line for each call would hide everything else."""
