"""Who may call: the interceptor that asks every caller for a token, workers for theirs and people for theirs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import grpc

from antinfer.rpc.channel import token_matches

_REFUSAL = "wrong or missing token: start workers and tools with --token-file and the master's token"
_ADMIN: Final = "/antinfer.rpc.v1.Admin/"


@dataclass(frozen=True, slots=True)
class Tokens:
    """What callers must show; empty: nothing."""

    work: str = field(default="", repr=False)
    admin: str = field(default="", repr=False)
    """For status, drain, cancel; empty: the same as for workers."""

    def of(self, method: str) -> str:
        """Return the token for a method, which is named with its service."""
        return self.admin or self.work if method.startswith(_ADMIN) else self.work


class TokenInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Turns away every call that does not carry its token."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        wanted = self._tokens.of(handler_call_details.method)
        if handler is None or token_matches(handler_call_details.invocation_metadata, wanted):
            return handler
        return _refusing(handler)


def _refusing(handler: Any) -> Any:
    """Return a handler of the same kind as `handler` that refuses."""

    async def refuse(_request: Any, context: grpc.aio.ServicerContext) -> None:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, _REFUSAL)

    if handler.request_streaming and handler.response_streaming:
        return grpc.stream_stream_rpc_method_handler(refuse)
    return grpc.unary_unary_rpc_method_handler(refuse)
