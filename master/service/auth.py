"""The shared token: who may call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from antinfer.rpc.channel import token_matches

_REFUSAL = "wrong or missing token: start workers and tools with --token-file and the master's token"


class TokenInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Turns away every call that does not carry the token."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None or token_matches(handler_call_details.invocation_metadata, self._token):
            return handler
        return _refusing(handler)


def _refusing(handler: Any) -> Any:
    """Return a handler of the same kind as `handler` that refuses."""

    async def refuse(_request: Any, context: grpc.aio.ServicerContext) -> None:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, _REFUSAL)

    if handler.request_streaming and handler.response_streaming:
        return grpc.stream_stream_rpc_method_handler(refuse)
    return grpc.unary_unary_rpc_method_handler(refuse)
