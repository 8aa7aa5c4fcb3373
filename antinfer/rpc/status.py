"""Errors across the wire: `AntinferError` <-> gRPC status.

The status code tells tools that know nothing of antinfer what kind of error it was; the trailing metadata names the class and carries the
hint, so that our own clients raise the very error the server raised.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import grpc

from antinfer import errors
from antinfer.errors import AntinferError, DataError, InfraError, InternalError, MasterError, UsageError, UserError

_CLASS_KEY: Final = "antinfer-error"
_HINT_KEY: Final = "antinfer-hint-bin"

_CODES: Final[tuple[tuple[type[AntinferError], grpc.StatusCode], ...]] = (
    (UsageError, grpc.StatusCode.INVALID_ARGUMENT),
    (UserError, grpc.StatusCode.FAILED_PRECONDITION),
    (DataError, grpc.StatusCode.FAILED_PRECONDITION),
    (InfraError, grpc.StatusCode.UNAVAILABLE),
)

Trailer = tuple[tuple[str, str | bytes], ...]


def to_status(error: AntinferError) -> tuple[grpc.StatusCode, str, Trailer]:
    """Return code, details and trailing metadata for a call that ended in `error`."""
    code = next((code for kind, code in _CODES if isinstance(error, kind)), grpc.StatusCode.INTERNAL)
    trailer: Trailer = ((_CLASS_KEY, type(error).__name__),)
    if error.hint:
        trailer += ((_HINT_KEY, error.hint.encode()),)
    return code, str(error), trailer


_HUNG_UP: Final = "Socket closed"
_CLOCKS: Final = "Compare the clocks of both machines; here it is {now:%Y-%m-%d %H:%M} UTC."
_HANDSHAKE: Final = (
    ("certificate has expired", "its certificate has expired", f"Make a new one, as `antinfer resume` does for a submitted job. {_CLOCKS}"),
    ("certificate is not yet valid", "its certificate is not valid yet", _CLOCKS),
    ("Hostname Verification", "its certificate is for another name", "Give the name that stands in it: --tls-name."),
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is not one of the authority that we trust", "Give the right authority: --tls-ca."),
    ("WRONG_VERSION_NUMBER", "it speaks no TLS", "Leave out the options for TLS, or start the master with them."),
)
"""What a handshake fails with, in the words of the library; what that means; what can be done."""


def _handshake_failure(details: str) -> tuple[str, str] | None:
    """Return what is wrong with the connection and what can be done; None when it is nothing about TLS."""
    for sign, meaning, hint in _HANDSHAKE:
        if sign in details:
            return meaning, hint.format(now=datetime.now(UTC))
    return None


def from_status(error: grpc.RpcError, address: str) -> AntinferError:
    """Return what a failed call to `address` means; to be raised from `error`."""
    call: Any = error
    code, details = call.code(), call.details() or ""
    trailer: dict[str, str | bytes] = dict(call.trailing_metadata() or ())
    kind = getattr(errors, str(trailer.get(_CLASS_KEY, "")), None)
    if isinstance(kind, type) and issubclass(kind, AntinferError):
        hint = trailer.get(_HINT_KEY, b"")
        raised: AntinferError = kind(details, hint=hint.decode() if isinstance(hint, bytes) else hint)
        return raised
    if code is grpc.StatusCode.UNAUTHENTICATED or code is grpc.StatusCode.PERMISSION_DENIED:
        return MasterError(f"the master at {address} refuses our token", hint="give --token-file the file the master was started with")
    if code is grpc.StatusCode.UNAVAILABLE and (text := _handshake_failure(details)):
        return MasterError(f"no secure connection to the master at {address}: {text[0]}", hint=text[1])
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return MasterError(f"a message from or to the master at {address} is too large: {details}")
    if code is grpc.StatusCode.UNAVAILABLE:
        hint = "does it speak TLS, and ask for a certificate of its authority?" if details.endswith(_HUNG_UP) else ""
        return MasterError(f"no master answers at {address}: {details}", hint=hint or "is it running, and is the address right?")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return MasterError(f"the master at {address} does not answer in time", hint="it may be busy starting up; try again")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return MasterError(f"what answers at {address} is not a master of this version: {details}")
    if code is grpc.StatusCode.CANCELLED:
        return MasterError(f"the call to the master at {address} was cancelled")
    return InternalError(f"the master at {address} failed: {code.name}: {details}")


def refuses_us(error: BaseException) -> bool:
    """Tell whether `error` is the master's refusal of our token, which waiting does not mend."""
    cause: Any = error.__cause__
    if not isinstance(cause, grpc.RpcError):
        return False
    return cause.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
