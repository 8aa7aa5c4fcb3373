"""Batches: many calls in one request, each with an answer of its own."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from http.client import responses

from tests.integration.gcs.errors import ApiError, invalid
from tests.integration.gcs.messages import Request, Response
from tests.integration.gcs.multipart import Part, parts_of

LIMIT = 100


def answer(request: Request, handle: Callable[[Request], Response]) -> Response:
    """Let every call of a batch be handled, in order; raises ApiError when the request is no batch."""
    parts = parts_of(request.headers, request.body, "multipart/mixed")
    if len(parts) > LIMIT:
        raise invalid(f"A batch has up to {LIMIT} calls, not {len(parts)}")
    boundary = f"batch_{secrets.token_hex(12)}"
    answers = [f"--{boundary}\r\n".encode() + _answer(part, request, handle) for part in parts]
    body = b"".join(answers) + f"--{boundary}--\r\n".encode()
    return Response(200, body, {"Content-Type": f"multipart/mixed; boundary={boundary}"})


def _answer(part: Part, outer: Request, handle: Callable[[Request], Response]) -> bytes:
    try:
        response = handle(_call(part, outer))
    except ApiError as error:
        response = Response.of_error(error)
    head = "Content-Type: application/http\r\n"
    if content_id := part.headers.get("Content-ID"):
        head += f"Content-ID: <response-{content_id.strip('<>')}>\r\n"
    head += f"\r\nHTTP/1.1 {response.status} {responses[response.status]}\r\n"
    headers = {**response.headers, "Content-Length": str(len(response.body))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{head}{lines}\r\n".encode() + response.body + b"\r\n"


def _call(part: Part, outer: Request) -> Request:
    if part.headers.get_content_type() != "application/http":
        raise invalid(f"A part of a batch is application/http, not {part.headers.get_content_type()}", "Content-Type")
    first, _, rest = part.body.lstrip().partition(b"\n")
    words = first.decode().split()
    if len(words) != 3:
        raise invalid(f"A part of a batch begins with a request line, not {first!r}")
    inner = Part.of(rest)
    # A call has the credentials of the batch, unless it brings its own.
    if "Authorization" not in inner.headers and "Authorization" in outer.headers:
        inner.headers["Authorization"] = outer.headers["Authorization"]
    request = Request.of(words[0], words[1], inner.headers, inner.body)
    if request.path.startswith(("/upload/", "/download/", "/batch/")) or request.query.get("alt") == "media":
        raise invalid(f"A batch cannot carry data: {words[1]}")
    return request
