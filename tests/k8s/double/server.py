"""The HTTP side of the API server: one thread per connection, answers in JSON, watches in chunks."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import urlsplit

from tests.k8s.double import forwarding, kinds, routes, tables, websockets
from tests.k8s.double.errors import ApiError, no_such_path
from tests.k8s.double.faults import Calls, Fault, Faults
from tests.k8s.double.rbac import Attributes, User
from tests.k8s.double.requests import Answer, Request, Requests
from tests.k8s.double.selectors import selected_name

_LARGEST_BODY_BYTES: Final = 3 * 1024 * 1024


class _Cut(Exception):
    """The connection is to be broken here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: ApiServer

    def setup(self) -> None:
        super().setup()
        self.server.opened(self.connection)

    def finish(self) -> None:
        self.server.closed(self.connection)
        try:
            super().finish()
        except OSError:
            # The other side has gone, or the server has been stopped: there is no one to be told.
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: what was asked is counted."""

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def _serve(self) -> None:
        try:
            self._answer()
        except (_Cut, ConnectionError):
            self.close_connection = True

    def _answer(self) -> None:
        body = self._body()
        url = urlsplit(self.path)
        try:
            try:
                self._answer_to(url.path, url.query, body)
            except ApiError as error:
                self._send(error.code, json.dumps(error.status()).encode(), headers=_retry(error))
        except Exception as error:
            if isinstance(error, (_Cut, ConnectionError)):
                raise
            # A defect of the double, and a 500 for the client, which then reads what went wrong.
            self.server.failures.append(error)
            refusal = ApiError(500, f"Internal error occurred: {error!r}")
            self._send(500, json.dumps(refusal.status()).encode())
            raise

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer_to(self, path: str, query_text: str, body: bytes) -> None:
        server = self.server
        if path in ("/healthz", "/readyz", "/livez"):
            self._send(200, b"ok", content_type="text/plain")
            return
        found = kinds.discovery(path.rstrip("/"))
        query = routes.parse_query(query_text)
        if found is not None and self.command == "GET":
            server.calls.count("get", path.rstrip("/"))
            self._meet(server.faults.take("get", path.rstrip("/")))
            server.requests.authorizer.user_of(self.headers.get("Authorization"))
            self._send(200, json.dumps(found).encode())
            return
        if not path.startswith(("/api/", "/apis/")):
            raise no_such_path()
        user = server.requests.authorizer.user_of(self.headers.get("Authorization"))
        route = routes.parse(self.command, path, query)
        server.calls.count(route.verb, route.what)
        faults = server.faults.take(route.verb, route.what)
        self._meet([each for each in faults if not each.after])
        if len(body) > _LARGEST_BODY_BYTES:
            raise ApiError(413, f"limit is {_LARGEST_BODY_BYTES}", reason="RequestEntityTooLarge")
        if route.resource is not kinds.ACCESSREVIEWS:
            # As a real one does: who lists or watches the one object of a name asks for that name.
            name = route.name or selected_name(query.get("fieldSelector", ""))
            asked = Attributes(route.verb, route.resource.group, route.what, route.namespace, name)
            server.requests.authorizer.check(user, asked)
        if route.subresource == "portforward":
            self._forward(route, query, user)
            return
        agent = self.headers.get("User-Agent") or ""
        request = Request(route, query, body, self.headers.get("Content-Type") or "", agent, user)
        answer = server.requests.handle(request)
        self._meet([each for each in faults if each.after])
        self._deliver(answer, route)

    def _forward(self, route: routes.Route, query: Mapping[str, str], user: User) -> None:
        """Become a WebSocket that leads to ports of a pod. Opening one takes the right to create, beside that of the method."""
        server = self.server
        if not websockets.is_upgrade(self.headers):
            raise ApiError(400, "Upgrade request required")
        server.requests.authorizer.check(user, Attributes("create", route.resource.group, route.what, route.namespace, route.name))
        pod = server.requests.registry.get(route.resource, route.namespace, route.name)
        ports = forwarding.ports_of(query)
        address = forwarding.address_of(pod, server.is_reachable)
        headers = websockets.accept(self.headers, forwarding.PROTOCOLS)
        self.send_response(101)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = True
        forwarding.forward(websockets.WebSocket(self.rfile, self.wfile), pod, address, ports)

    def _meet(self, faults: Iterable[Fault]) -> None:
        """Suffer the faults that were ordered for this request."""
        for fault in faults:
            if fault.latency_s:
                self.server.stopping.wait(fault.latency_s)
            if fault.cuts:
                raise _Cut
            error = fault.error()
            if error is not None:
                raise error

    def _deliver(self, answer: Answer, route: routes.Route) -> None:
        as_table = tables.wants_table(self.headers.get("Accept") or "") and not route.subresource
        if answer.lines is not None:
            lines = tables.table_lines(route.resource, answer.lines) if as_table else answer.lines
            self._stream(lines, answer.content_type, follows=route.verb == "watch")
            return
        raw = answer.raw
        if as_table:
            shown = answer.body if answer.body is not None else json.loads(raw)
            raw = json.dumps(tables.table_of(route.resource, shown)).encode()
        elif answer.body is not None:
            raw = json.dumps(answer.body).encode()
        headers = [("Warning", f'299 - "{_quoted(each)}"') for each in answer.warnings]
        self._send(answer.code, raw, content_type=answer.content_type, headers=headers)

    def _send(self, code: int, body: bytes, *, content_type: str = "application/json", headers: Iterable[tuple[str, str]] = ()) -> None:
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Audit-Id", self.server.next_id())
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, lines: Iterable[bytes | None], content_type: str, *, follows: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        generation = self.server.watch_generation
        for line in lines:
            if self.server.stopping.is_set() or (follows and self.server.watch_generation != generation):
                raise _Cut
            if line is None:
                if self._has_gone():
                    raise _Cut
                continue
            if line:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        self.wfile.write(b"0\r\n\r\n")

    def _has_gone(self) -> bool:
        try:
            return not self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False


def _retry(error: ApiError) -> list[tuple[str, str]]:
    return [("Retry-After", str(error.retry_after_s))] if error.retry_after_s is not None else []


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


class ApiServer(ThreadingHTTPServer):
    """Serves `requests` on a free port of 127.0.0.1."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, requests: Requests) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests = requests
        self.calls = Calls()
        self.faults = Faults()
        self.failures: list[Exception] = []
        """Defects of the double that clients saw as 500."""
        self.is_reachable: Callable[[str], bool] = lambda node: True
        """Whether a node is there to be spoken to."""
        self.stopping = threading.Event()
        self.watch_generation = 0
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._served = 0
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), name="api-server", daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Take no more connections and break those that there are."""
        self.stopping.set()
        self.shutdown()
        self.server_close()
        self._wake_watches()
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            _break(connection)
        self._thread.join()

    def cut_watches(self) -> None:
        """Break every open watch without a word, as a proxy between client and server does."""
        self.watch_generation += 1
        self._wake_watches()

    def _wake_watches(self) -> None:
        with self.requests.registry.store.changed:
            self.requests.registry.store.changed.notify_all()

    def opened(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.add(connection)

    def closed(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.discard(connection)

    def next_id(self) -> str:
        with self._lock:
            self._served += 1
            return str(self._served)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print what broke, unless a client that left or the stop of the server did."""
        if not self.stopping.is_set() and not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _break(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        # It was closed in this very moment.
        return
