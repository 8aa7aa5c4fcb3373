"""Errors across the wire: `AntinferError` <-> gRPC status.

The status code tells tools that know nothing of antinfer what kind of error it was; the trailing metadata names the class and carries the
hint, so that our own clients raise the very error the server raised.
"""

from __future__ import annotations

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
    if code is grpc.StatusCode.UNAVAILABLE:
        return MasterError(f"no master answers at {address}: {details}", hint="is it running, and is the address right?")
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
