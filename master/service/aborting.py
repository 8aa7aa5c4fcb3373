"""The end of a call that went wrong."""

from __future__ import annotations

from typing import Any, NoReturn

from antinfer.errors import AntinferError
from antinfer.rpc.status import to_status


async def abort(context: Any, error: AntinferError) -> NoReturn:
    """End a call with `error`, which the caller raises as what it is."""
    code, details, trailer = to_status(error)
    await context.abort(code, details, trailing_metadata=trailer)
    raise AssertionError("an aborted call went on")
