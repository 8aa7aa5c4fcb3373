"""Errors of the API, and the JSON that tells of them."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """A request that is answered with an error; `location` names the parameter or header at fault."""

    def __init__(self, status: int, reason: str, message: str, location: str = "", headers: dict[str, str] | None = None) -> None:
        # All of it, so that the error can be sent from one process to another.
        super().__init__(status, reason, message, location, headers)
        self.status, self.reason, self.message, self.location = status, reason, message, location
        self.headers = headers or {}

    def __str__(self) -> str:
        return f"{self.status} {self.reason}: {self.message}"

    def body(self) -> dict[str, Any]:
        detail = {"domain": "global", "reason": self.reason, "message": self.message}
        if self.location:
            kind = "header" if self.location[0].isupper() else "parameter"
            detail |= {"locationType": kind, "location": self.location}
        return {"error": {"code": self.status, "message": self.message, "errors": [detail]}}


def invalid(message: str, location: str = "") -> ApiError:
    return ApiError(400, "invalid", message, location)


def required(location: str) -> ApiError:
    return ApiError(400, "required", f"Required: {location}", location)


def not_found(what: str) -> ApiError:
    return ApiError(404, "notFound", f"Not found: {what}")


def condition_not_met(parameter: str) -> ApiError:
    return ApiError(412, "conditionNotMet", "At least one of the pre-conditions you specified did not hold.", parameter)


def not_modified() -> ApiError:
    return ApiError(304, "notModified", "Not Modified")


def not_implemented(message: str, location: str = "") -> ApiError:
    """Return the error for what the real service may know and the double does not: no test passes by it unseen."""
    return ApiError(501, "notImplemented", message, location)


REASONS = {
    403: "forbidden",
    404: "notFound",
    410: "gone",
    429: "rateLimitExceeded",
    500: "internalError",
    502: "badGateway",
    503: "backendError",
    504: "gatewayTimeout",
}


def of_status(status: int) -> ApiError:
    """Return the error that the service gives for trouble of its own."""
    return ApiError(status, REASONS[status], f"Trouble on demand: {REASONS[status]}")
