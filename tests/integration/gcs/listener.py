"""The service on a port of the loopback interface."""

from __future__ import annotations

import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.integration.gcs.errors import ApiError
from tests.integration.gcs.messages import Request, Response
from tests.integration.gcs.service import Service
from tests.integration.gcs.state import Store
from tests.integration.gcs.trouble import ConnectionLost, RequestLog, Trouble


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def _answer(self) -> None:
        try:
            request = Request.of(self.command, self.path, self.headers, self._body())
            response = self.server.service.answer(request)
        except ApiError as error:
            response = Response.of_error(error)
        except ConnectionLost:
            self.close_connection = True
            return
        self.send_response(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        if response.status not in (204, 304):
            self.send_header("Content-Length", str(len(response.body)))
        self.end_headers()
        self.wfile.write(response.body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(chunks)

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing: tests have the log of the service."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, page_size: int, token: str | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.service = Service(f"http://127.0.0.1:{self.server_port}", page_size, token)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # Clients that are killed leave their connections in the middle of a request.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Double:
    """A service that listens from the first moment on, in this process."""

    def __init__(self, page_size: int, token: str | None) -> None:
        server = _Server(page_size, token)
        self._service = server.service
        threading.Thread(target=server.serve_forever, name="gcs-double", daemon=True).start()

    def url(self) -> str:
        return self._service.url

    def store(self) -> Store:
        return self._service.store

    def trouble(self) -> Trouble:
        return self._service.trouble

    def log(self) -> RequestLog:
        return self._service.log
