"""Which method a request means, and which parameters that method has: anything else is refused, not passed over."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from tests.integration.gcs import conditions
from tests.integration.gcs.errors import invalid, not_implemented
from tests.integration.gcs.messages import Request

COMMON = frozenset({"alt", "fields", "prettyPrint", "projection", "quotaUser", "userProject"})
PAGES = frozenset({"maxResults", "pageToken", "prefix"})
LISTING = PAGES | {"delimiter", "endOffset", "includeTrailingDelimiter", "startOffset", "versions", "softDeleted"}
ONE = conditions.TARGET | {"generation"}
COPY = conditions.TARGET | conditions.SOURCE | {"sourceGeneration"}
# Parameters that the double does not act upon, and the values at which there is nothing to act upon: it keeps no lists of access.
HARMLESS = {"alt": {"json", "media"}, "projection": {"noAcl", "full"}, "versions": {"false"}, "softDeleted": {"false"}}
REFUSED_HEADERS = ("x-goog-encryption-", "x-goog-copy-source-encryption-", "x-goog-if-")
BUCKETS, BUCKET, OBJECTS = "/storage/v1/b", "/storage/v1/b/{bucket}", "/storage/v1/b/{bucket}/o"
OBJECT, TARGET = OBJECTS + "/{name}", "b/{to_bucket}/o/{to}"
ROUTES: list[tuple[str, str, str, frozenset[str]]] = [
    ("GET", BUCKETS, "buckets.list", PAGES | {"project"}),
    ("POST", BUCKETS, "buckets.insert", frozenset({"project"})),
    ("GET", BUCKET, "buckets.get", frozenset()),
    ("DELETE", BUCKET, "buckets.delete", frozenset()),
    ("GET", OBJECTS, "objects.list", LISTING),
    ("GET", OBJECT, "objects.get", ONE),
    ("GET", "/download" + OBJECT, "objects.get", ONE),
    ("DELETE", OBJECT, "objects.delete", ONE),
    ("PATCH", OBJECT, "objects.patch", ONE),
    ("POST", OBJECT + "/moveTo/o/{to}", "objects.move", conditions.TARGET | conditions.SOURCE),
    ("POST", OBJECT + "/rewriteTo/" + TARGET, "objects.rewrite", COPY),
    ("POST", OBJECT + "/copyTo/" + TARGET, "objects.copy", COPY),
    ("POST", "/upload" + OBJECTS, "objects.insert", conditions.TARGET | {"uploadType", "name"}),
    ("PUT", "/upload" + OBJECTS, "uploads.put", conditions.TARGET | {"uploadType", "name", "upload_id"}),
    ("DELETE", "/upload" + OBJECTS, "uploads.cancel", conditions.TARGET | {"uploadType", "name", "upload_id"}),
    ("POST", "/batch/storage/v1", "batch", frozenset()),
]
PATTERNS = [(method, re.compile(re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", path)), name, known) for method, path, name, known in ROUTES]


@dataclass(frozen=True)
class Call:
    """A method of the API, and the names that its path has."""

    method: str
    names: Mapping[str, str]


def call_of(request: Request) -> Call:
    """Return what a request calls for; raises ApiError, 501 or 400, for what the double does not know."""
    for method, path, name, known in PATTERNS:
        found = path.fullmatch(request.path)
        if found is not None and method == request.method:
            _check(request, known | COMMON)
            return Call(name, {key: unquote(value, errors="strict") for key, value in found.groupdict().items()})
    raise not_implemented(f"There is no {request.method} {request.path} (the slashes of a name are sent as %2F)")


def _check(request: Request, known: frozenset[str]) -> None:
    for parameter, value in request.query.items():
        if parameter not in known:
            raise invalid(f"Unknown parameter {parameter}={value}", parameter)
        if value not in HARMLESS.get(parameter, {value}):
            raise not_implemented(f"{parameter}={value} is not implemented", parameter)
    for header in request.headers:
        if header.lower().startswith(REFUSED_HEADERS):
            raise not_implemented(f"The header {header} is not implemented", header)
