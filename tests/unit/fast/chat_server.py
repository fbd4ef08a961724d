"""A real HTTP server on the loopback that speaks OpenAI's chat completions and misbehaves as told."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

INPUT_TOKENS, OUTPUT_TOKENS = 1000, 200


@dataclass(frozen=True)
class Answer:
    """What the server does with one request. `body` replaces the completion that `text` would make. `drip`: the part of
    the answer that comes byte by byte, one every 50 ms, for as long as the client listens.
    """

    text: str = "<new_prompt>\nBe brief.\n</new_prompt>"
    status: int = 200
    finish_reason: str = "stop"
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None
    delay_s: float = 0.0
    drip: str = ""

    def encode(self) -> bytes:
        if self.body is not None:
            return self.body.encode()
        if self.status >= 400:
            return json.dumps({"error": {"message": f"status {self.status}", "type": "test"}}).encode()
        message = {"role": "assistant", "content": self.text}
        choice = {"index": 0, "message": message, "finish_reason": self.finish_reason}
        usage = {
            "prompt_tokens": INPUT_TOKENS, "completion_tokens": OUTPUT_TOKENS,
            "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
        }  # fmt: skip
        return json.dumps(
            {"id": "c", "object": "chat.completion", "created": 1, "model": "x", "choices": [choice], "usage": usage}
        ).encode()


class ChatServer:
    """`answer(number, request)` decides, request by request; a list of answers is played, its last one for ever."""

    def __init__(self, answers: "list[Answer] | Callable[[int, dict[str, Any]], Answer]") -> None:
        self.answers = answers
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.paths: list[str] = []
        self.failures = 0
        self.dripping = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> "ChatServer":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _take(self, path: str, key: str | None, request: dict[str, Any]) -> Answer:
        with self._lock:
            number = len(self.requests)
            self.requests.append(request)
            self.keys.append(key)
            self.paths.append(path)
            answers = self.answers
            answer = answers[min(number, len(answers) - 1)] if isinstance(answers, list) else answers(number, request)
            self.failures += answer.status >= 400
            return answer

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["content-length"])))
                answer = server._take(self.path, self.headers.get("authorization"), request)
                time.sleep(answer.delay_s)
                body = answer.encode()
                try:
                    if answer.drip:
                        self._drip(answer.drip)
                    self.send_response(answer.status)
                    for name, value in {"content-type": "application/json", **answer.headers}.items():
                        self.send_header(name, value)
                    self.send_header("content-length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:
                    self.close_connection = True  # the client has given up waiting, as a timeout test wants it to

            def _drip(self, part: str) -> None:
                head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                self.wfile.write(head + (b"x-long: " if part == "headers" else b"content-length: 100000\r\n\r\n"))
                server.dripping += 1
                try:
                    for _ in range(1000):
                        self.wfile.write(b" " if part == "body" else b"a")
                        time.sleep(0.05)
                finally:
                    server.dripping -= 1

            def log_message(self, format: str, *args: Any) -> None:
                return None

        return Handler
