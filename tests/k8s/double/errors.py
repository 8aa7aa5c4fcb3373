"""Refusals of the API server: an HTTP code, a reason, a message in the words of a real server, and its Status object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.k8s.double.objects import Object

_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    409: "Conflict",
    410: "Expired",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


class ApiError(Exception):
    """An answer other than success. `details` and `retry_after_s` are left out of the answer when None."""

    def __init__(
        self, code: int, message: str, *, reason: str = "", details: Object | None = None, retry_after_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason or _REASONS.get(code, "")
        self.details = details
        self.retry_after_s = retry_after_s

    def status(self) -> Object:
        """The Status object that a client gets."""
        answer: Object = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }
        details = dict(self.details or {})
        if self.retry_after_s is not None:
            details["retryAfterSeconds"] = self.retry_after_s
        if details:
            answer["details"] = details
        return answer


def _of(group: str, plural: str, name: str) -> Object:
    details: Object = {"name": name, "kind": plural}
    if group:
        details["group"] = group
    return details


def _qualified(group: str, plural: str) -> str:
    return f"{plural}.{group}" if group else plural


def not_found(group: str, plural: str, name: str) -> ApiError:
    return ApiError(404, f'{_qualified(group, plural)} "{name}" not found', details=_of(group, plural, name))


def no_such_path() -> ApiError:
    return ApiError(404, "the server could not find the requested resource", details={})


def already_exists(group: str, plural: str, name: str) -> ApiError:
    message = f'{_qualified(group, plural)} "{name}" already exists'
    return ApiError(409, message, reason="AlreadyExists", details=_of(group, plural, name))


def conflict(group: str, plural: str, name: str, why: str) -> ApiError:
    message = f'Operation cannot be fulfilled on {_qualified(group, plural)} "{name}": {why}'
    return ApiError(409, message, details=_of(group, plural, name))


def stale(group: str, plural: str, name: str) -> ApiError:
    why = "the object has been modified; please apply your changes to the latest version and try again"
    return conflict(group, plural, name, why)


def forbidden(group: str, plural: str, name: str, why: str) -> ApiError:
    message = f'{_qualified(group, plural)} "{name}" is forbidden: {why}'
    return ApiError(403, message, details=_of(group, plural, name))


def invalid(group: str, kind: str, name: str, causes: Sequence[tuple[str, str, str]]) -> ApiError:
    """`causes` are (reason, message, field), as FieldValueInvalid, FieldValueRequired, FieldValueForbidden, ..."""
    told = ", ".join(f"{field}: {message}" for _, message, field in causes)
    if len(causes) > 1:
        told = f"[{told}]"
    qualified = f"{kind}.{group}" if group else kind
    details: dict[str, Any] = _of(group, kind, name)
    details["causes"] = [{"reason": reason, "message": message, "field": field} for reason, message, field in causes]
    return ApiError(422, f'{qualified} "{name}" is invalid: {told}', details=details)


def expired(message: str) -> ApiError:
    return ApiError(410, message, reason="Expired")
