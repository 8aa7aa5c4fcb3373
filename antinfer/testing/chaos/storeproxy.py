"""A proxy in front of an S3 store that does what overloaded and mismanaged stores do: throttle, refuse, fail, and break off."""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final
from urllib.parse import urlsplit

_HOP: Final = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "expect"})
_ANSWER: Final = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>by the test</Message></Error>'
_CODES: Final = {"SlowDown": 503, "InternalError": 500, "AccessDenied": 403, "InsufficientStorage": 507}


class StoreProxy:
    """Serves from construction to `close`; what it does to requests may be changed at any time and from any thread.

    Each thing done to a request is counted in `done`: ``SlowDown``, ``AccessDenied``, ``cut``, ``passed``, ...
    """

    def __init__(self, target: str, *, seed: int = 0) -> None:
        """
        Args:
            target: ``http://HOST:PORT`` of the store.
            seed: of whom it hits.
        """
        split = urlsplit(target)
        self._target = (split.hostname or "127.0.0.1", split.port or 80)
        self._random = random.Random(seed)
        self._guard = threading.Lock()
        self._share = 0.0
        self._code = "SlowDown"
        self._methods: frozenset[str] = frozenset()
        self._cuts = 0
        self._delay_s = 0.0
        self.done: Counter[str] = Counter()
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, name="store-proxy", daemon=True, kwargs={"poll_interval": 0.05}).start()

    def __enter__(self) -> StoreProxy:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def url(self) -> str:
        """What to give as `endpoint_url`."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def refuse(self, code: str, share: float = 1.0, *methods: str) -> None:
        """Answer this share of all requests (of `methods` alone, if given) with an error from now on; a share of 0 ends it.

        `code` is ``SlowDown`` (503), ``InternalError`` (500), ``AccessDenied`` (403) or ``InsufficientStorage`` (507).
        """
        with self._guard:
            self._code, self._share, self._methods = code, share, frozenset(methods)

    def cut_uploads(self, count: int) -> None:
        """Break the connection off in the middle of the body of the next `count` uploaded parts."""
        with self._guard:
            self._cuts = count

    def slow(self, seconds: float) -> None:
        """Let every request take so much longer from now on."""
        self._delay_s = seconds

    def close(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()

    def decide(self, method: str, path: str) -> str:
        """Return what to do to a request: an error code, ``cut`` or ``passed``."""
        with self._guard:
            what = "passed"
            if self._cuts and method == "PUT" and "partNumber=" in path:
                self._cuts -= 1
                what = "cut"
            elif self._share and (not self._methods or method in self._methods) and self._random.random() < self._share:
                what = self._code
            self.done[what] += 1
        time.sleep(self._delay_s)
        return what

    def forward(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        """Carry a request to the store; return status, headers and body of its answer."""
        connection = http.client.HTTPConnection(*self._target, timeout=60)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()


class _Handler(BaseHTTPRequestHandler):
    owner: StoreProxy
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""

    def _serve(self) -> None:
        what = self.owner.decide(self.command, self.path)
        length = int(self.headers.get("Content-Length") or 0)
        if what == "cut":
            self.rfile.read(length // 2)
            self.close_connection = True
            self.connection.close()
            return
        body = self.rfile.read(length)
        if what in _CODES:
            answer = b"" if self.command == "HEAD" else _ANSWER.format(code=what).encode()
            self._reply(_CODES[what], [("Content-Type", "application/xml")], answer)
            return
        sent = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
        status, headers, answer = self.owner.forward(self.command, self.path, sent, body)
        self._reply(status, [(name, value) for name, value in headers if name.lower() not in _HOP], answer)

    def _reply(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve
