"""From an error to what the agent is told about it."""

from __future__ import annotations

import traceback

from antinfer.core.causes import Cause
from antinfer.core.ids import LeaseId
from antinfer.core.messages import FailureKind
from antinfer.errors import AntinferError, InfraError, MachineError, OutputError, UserCodeError
from antinfer.worker.hostlink import Failed


def failed(lease: LeaseId | None, error: BaseException, *, shared: bool = False) -> Failed:
    """Say that `lease`, or with None the whole host, failed by `error`: trouble of storage may pass, all else meets every worker.

    With `shared`, all workers write to the disk that the error may be about: one that is full or read-only is so for everybody.
    """
    if not isinstance(error, AntinferError):
        text = "".join(traceback.format_exception(error))
        return Failed(lease, FailureKind.FATAL, f"the stage host failed: {type(error).__name__}: {error}", text)
    if isinstance(error, InfraError):
        return Failed(lease, FailureKind.STORAGE, error.text, cause=_cause(error, shared=shared))
    if not isinstance(error, UserCodeError):
        return Failed(lease, FailureKind.FATAL, error.text)
    return Failed(lease, FailureKind.FATAL, error.text, error.user_traceback, Cause.HOPELESS if error.hopeless else Cause.UNKNOWN)


def is_passing(error: BaseException) -> bool:
    """Tell whether another try, here or elsewhere, may succeed."""
    return isinstance(error, InfraError)


def _cause(error: InfraError, *, shared: bool) -> Cause:
    if isinstance(error, MachineError):
        return Cause.HOST_DIED
    if not isinstance(error, OutputError) or not error.lasting or not (shared or error.remote):
        return Cause.STORAGE
    return Cause.DISK_FULL if error.full else Cause.OUTPUT_REFUSED
