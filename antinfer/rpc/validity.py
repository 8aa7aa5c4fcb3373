"""From when to when certificates are valid, read from their bytes: a worker starts often, and none needs a library for two dates."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from antinfer.errors import MachineError, UsageError

_PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)
_SEQUENCE: Final = 0x30
_VERSION: Final = 0xA0
_FORMATS: Final = {0x17: "%y%m%d%H%M%SZ", 0x18: "%Y%m%d%H%M%SZ"}
"""Of the two kinds of times, by their tag."""


def check_validity(pem: bytes, what: str, now: datetime) -> None:
    """Look whether every certificate in `pem` is valid at `now`; errors call them `what`.

    Raises:
        UsageError: There is none, or one has expired.
        MachineError: One is not valid yet, by the clock of this machine.
    """
    found = list(periods(pem, what))
    if not found:
        raise UsageError(f"{what} holds no certificate", hint="It has to be PEM text, with BEGIN CERTIFICATE and END CERTIFICATE.")
    for begins, ends in found:
        if now > ends:
            raise UsageError(
                f"{what} has expired on {_said(ends)}",
                hint=f"Make a new one; `antinfer resume` does for a submitted job. Or is the clock wrong? It says {_said(now)}.",
            )
        if now < begins:
            raise MachineError(
                f"{what} is not valid before {_said(begins)}, and the clock of this machine says {_said(now)}",
                hint="Set the clock right, here or where the certificate was made.",
            )


def periods(pem: bytes, what: str) -> Iterator[tuple[datetime, datetime]]:
    """Yield first and last moment of every certificate in `pem`. Raises `UsageError` when one is damaged."""
    for match in _PEM.finditer(pem):
        try:
            yield _period(base64.b64decode(match.group(1)))
        except (ValueError, IndexError, KeyError, binascii.Error) as error:
            raise UsageError(f"{what} holds a damaged certificate") from error


def _period(der: bytes) -> tuple[datetime, datetime]:
    """Certificate > TBSCertificate > [version], serial number, signature, issuer, validity > notBefore, notAfter."""
    _, start, _ = _element(der, 0, _SEQUENCE)
    _, at, _ = _element(der, start, _SEQUENCE)
    tag, _, end = _element(der, at)
    if tag == _VERSION:
        _, _, end = _element(der, end)
    for _ in range(2):
        _, _, end = _element(der, end)
    _, at, _ = _element(der, end, _SEQUENCE)
    tag, start, end = _element(der, at)
    begins = _time(tag, der[start:end])
    tag, start, end = _element(der, end)
    return begins, _time(tag, der[start:end])


def _element(der: bytes, at: int, wanted: int | None = None) -> tuple[int, int, int]:
    """Return the tag of what stands at `at`, and where its content begins and ends. Raises ValueError when it is not what is `wanted`."""
    tag, length, start = der[at], der[at + 1], at + 2
    if length & 0x80:
        size = length & 0x7F
        length, start = int.from_bytes(der[start : start + size], "big"), start + size
    if start + length > len(der) or (wanted is not None and tag != wanted):
        raise ValueError("not the element that should stand here")
    return tag, start, start + length


def _time(tag: int, content: bytes) -> datetime:
    return datetime.strptime(content.decode("ascii"), _FORMATS[tag]).replace(tzinfo=UTC)


def _said(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
