"""WebSockets (RFC 6455) from the side of a server, as far as the API needs them: binary messages in both directions."""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO, Final

from tests.k8s.double.errors import ApiError

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CONTINUED, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_NORMAL, _WRONG, _UNWANTED = 1000, 1002, 1003
_LONGEST: Final = 1 << 24


class Closed(Exception):
    """The client has closed the connection, or has broken the protocol."""


def is_upgrade(headers: Mapping[str, str]) -> bool:
    """Whether a request asks for a WebSocket."""
    tokens = [each.strip().lower() for each in (headers.get("Connection") or "").split(",")]
    return "upgrade" in tokens and (headers.get("Upgrade") or "").lower() == "websocket"


def accept(headers: Mapping[str, str], protocols: tuple[str, ...]) -> list[tuple[str, str]]:
    """The headers of the answer that agrees. Raises 400 for a handshake that is none, 403 where no protocol is shared."""
    key = headers.get("Sec-WebSocket-Key") or ""
    try:
        is_key = len(base64.b64decode(key, validate=True)) == 16
    except binascii.Error:
        is_key = False
    if headers.get("Sec-WebSocket-Version") != "13" or not is_key:
        raise ApiError(400, "not a websocket handshake of version 13")
    asked = [each.strip() for each in (headers.get("Sec-WebSocket-Protocol") or "").split(",") if each.strip()]
    shared = next((each for each in asked if each in protocols), None)
    if shared is None:
        raise ApiError(403, f"requested protocol(s) are not supported: {asked}; supports {list(protocols)}")
    answer = base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode()
    return [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", answer), ("Sec-WebSocket-Protocol", shared)]


@dataclass
class WebSocket:
    """A connection after its handshake. One thread may read, any may send."""

    source: BinaryIO
    sink: BinaryIO

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._is_closed = False

    def send(self, message: bytes) -> None:
        self._frame(_BINARY, message)

    def close(self, code: int = _NORMAL) -> None:
        """Say goodbye, once: nothing follows that."""
        self._frame(_CLOSE, struct.pack(">H", code))

    def receive(self) -> bytes:
        """The next message. Raises `Closed`."""
        parts: list[bytes] = []
        while True:
            final, opcode, content = self._read()
            if opcode == _PING:
                self._frame(_PONG, content)
            elif opcode == _CLOSE:
                self.close()
                raise Closed
            elif opcode == _TEXT:
                self._refuse(_UNWANTED)
            elif opcode in (_BINARY, _CONTINUED):
                if (opcode == _CONTINUED) != bool(parts):
                    self._refuse(_WRONG)
                parts.append(content)
                if final:
                    return b"".join(parts)
            elif opcode != _PONG:
                self._refuse(_WRONG)

    def _read(self) -> tuple[bool, int, bytes]:
        first, second = self._take(2)
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack(">H", self._take(2))
        elif length == 127:
            (length,) = struct.unpack(">Q", self._take(8))
        # What a client sends is masked, always; nothing was agreed that would use the reserved bits.
        if not second & 0x80 or first & 0x70 or length > _LONGEST:
            self._refuse(_WRONG)
        mask = self._take(4)
        content = self._take(length)
        whole = int.from_bytes(content, "big") ^ int.from_bytes((mask * (length // 4 + 1))[:length], "big")
        return bool(first & 0x80), first & 0x0F, whole.to_bytes(length, "big")

    def _take(self, size: int) -> bytes:
        data = self.source.read(size)
        if len(data) < size:
            raise Closed
        return data

    def _refuse(self, code: int) -> None:
        self.close(code)
        raise Closed

    def _frame(self, opcode: int, content: bytes) -> None:
        size = len(content)
        if size < 126:
            head = struct.pack(">BB", 0x80 | opcode, size)
        elif size < 1 << 16:
            head = struct.pack(">BBH", 0x80 | opcode, 126, size)
        else:
            head = struct.pack(">BBQ", 0x80 | opcode, 127, size)
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = opcode == _CLOSE
            self.sink.write(head + content)
            self.sink.flush()
