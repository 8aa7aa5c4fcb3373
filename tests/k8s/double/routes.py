"""What a path and its query ask for."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass

from tests.k8s.double import kinds
from tests.k8s.double.errors import ApiError, no_such_path
from tests.k8s.double.kinds import NAMESPACES, Resource

_VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True)
class Route:
    """One request, understood. `namespace` is empty for all of them, `name` for a collection."""

    verb: str
    resource: Resource
    namespace: str
    name: str
    subresource: str

    @property
    def what(self) -> str:
        """Resource and subresource, as rules and counters name them."""
        return f"{self.resource.plural}/{self.subresource}" if self.subresource else self.resource.plural


def parse_query(text: str) -> dict[str, str]:
    """The query's parameters; of a repeated one the last counts, except `dryRun`, which is not repeated by anyone."""
    return dict(urllib.parse.parse_qsl(text, keep_blank_values=True))


def is_true(query: Mapping[str, str], name: str) -> bool:
    return query.get(name, "").lower() in ("true", "1")


def number(query: Mapping[str, str], name: str) -> int | None:
    """An integer parameter. Raises 400 where it is none."""
    if name not in query or query[name] == "":
        return None
    try:
        return int(query[name])
    except ValueError as error:
        raise ApiError(400, f'strconv.ParseInt: parsing "{query[name]}": invalid syntax') from error


def parse(method: str, path: str, query: Mapping[str, str]) -> Route:
    """Raises 404 for a path that leads nowhere and 405 for a verb that it does not take."""
    parts = [urllib.parse.unquote(part) for part in path.strip("/").split("/")]
    if parts[0] == "api" and len(parts) > 2:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        raise no_such_path()
    resource, namespace, rest = _locate(group, version, rest)
    name, subresource = (*rest, "", "")[:2]
    if len(rest) > 2 or (subresource and subresource not in resource.subresources):
        raise no_such_path()
    verb = _verb(method, name, query)
    if not subresource and verb not in resource.verbs:
        raise _not_allowed()
    if verb == "create" and bool(name) != bool(subresource):
        raise _not_allowed()
    if verb in ("update", "patch") and not name:
        raise _not_allowed()
    return Route(verb, resource, namespace, name, subresource)


def _locate(group: str, version: str, rest: list[str]) -> tuple[Resource, str, list[str]]:
    if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in NAMESPACES.subresources:
        resource = kinds.find(group, version, rest[2])
        if resource is None or not resource.namespaced:
            raise no_such_path()
        return resource, rest[1], rest[3:]
    resource = kinds.find(group, version, rest[0])
    if resource is None or (resource.namespaced and len(rest) > 1):
        raise no_such_path()
    return resource, "", rest[1:]


def _verb(method: str, name: str, query: Mapping[str, str]) -> str:
    if method not in _VERBS:
        raise _not_allowed()
    verb = _VERBS[method]
    if verb == "get" and not name:
        return "watch" if is_true(query, "watch") else "list"
    if verb == "delete" and not name:
        return "deletecollection"
    return verb


def _not_allowed() -> ApiError:
    return ApiError(405, "the server does not allow this method on the requested resource", details={})
