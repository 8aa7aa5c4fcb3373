"""Bodies of several parts, taken apart byte by byte: data may hold anything but the boundary."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser

from tests.integration.gcs.errors import invalid
from tests.integration.gcs.messages import Request


@dataclass(frozen=True)
class Part:
    headers: Message
    body: bytes

    @classmethod
    def of(cls, data: bytes) -> Part:
        """Take lines of headers, an empty line and a body apart."""
        cut = re.search(rb"(?:\A|\r?\n)\r?\n", data)
        head, body = (data, b"") if cut is None else (data[: cut.start()], data[cut.end() :])
        return cls(HeaderParser().parsestr(head.decode()), body)


def parts_of(headers: Mapping[str, str], body: bytes, kind: str) -> list[Part]:
    """Return the parts of a body whose content type is `kind`; raises ApiError when it is none."""
    content_type = Message()
    content_type["Content-Type"] = headers.get("Content-Type", "")
    boundary = content_type.get_boundary()
    if content_type.get_content_type() != kind or not boundary:
        raise invalid(f"The body is not {kind}: {content_type['Content-Type']!r}", "Content-Type")
    line = rb"(?:\A|\r?\n)--" + re.escape(boundary.encode())
    *pieces, last = re.split(line + rb"[ \t]*\r?\n", body)
    end = re.search(line + rb"--[ \t]*(?:\r?\n|\Z)", last)
    if end is None or not pieces:
        raise invalid("Missing boundary of the body", "Content-Type")
    return [Part.of(piece) for piece in (*pieces[1:], last[: end.start()])]


def related(request: Request) -> tuple[Part, Part]:
    """Return the document and the data of a multipart upload."""
    parts = parts_of(request.headers, request.body, "multipart/related")
    if len(parts) != 2:
        raise invalid(f"A multipart upload has two parts, not {len(parts)}")
    return parts[0], parts[1]
