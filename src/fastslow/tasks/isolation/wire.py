"""What crosses between the run and its own processes: JSON, with its length in front. Nothing is pickled."""

import json
import socket
import struct
from collections.abc import Callable
from typing import Any

_LENGTH = struct.Struct(">Q")
MOST_BYTES = 1 << 28
"""Of one message: a process that sends more is taken for broken."""


class Closed(ConnectionError):
    """The other side is gone, or what it sends is no message."""


def send(connection: socket.socket, message: object) -> None:
    """Send a message. Raises TypeError or ValueError for what JSON does not have, OSError where nobody listens."""
    data = json.dumps(message).encode()
    if len(data) > MOST_BYTES:
        raise ValueError(f"a message of {len(data)} bytes is too long")
    connection.sendall(_LENGTH.pack(len(data)) + data)


def receive(connection: socket.socket, wait: Callable[[], None] = lambda: None) -> Any:
    """The next message; `wait` is called before each read, and may raise. Raises Closed."""
    (length,) = _LENGTH.unpack(_read(connection, _LENGTH.size, wait))
    if length > MOST_BYTES:
        raise Closed(f"a message of {length} bytes is too long")
    try:
        return json.loads(_read(connection, length, wait))
    except (ValueError, RecursionError) as error:
        raise Closed(f"what came is no message: {error}") from error


def _read(connection: socket.socket, size: int, wait: Callable[[], None]) -> bytes:
    data = bytearray()
    while len(data) < size:
        wait()
        try:
            piece = connection.recv(min(size - len(data), 1 << 20))
        except TimeoutError:
            continue
        except OSError as error:
            raise Closed(str(error)) from error
        if not piece:
            raise Closed("the connection was closed")
        data += piece
    return bytes(data)
