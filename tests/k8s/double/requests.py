"""Requests, understood and carried out: what lies between HTTP and the registry."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from tests.k8s.double import apply, deletion, patches, protobuf, routes, schema, subresources
from tests.k8s.double.errors import ApiError, invalid
from tests.k8s.double.kinds import JOBS, Resource
from tests.k8s.double.listing import Lists, matcher_of
from tests.k8s.double.objects import Object, dig, name_of, uid_of
from tests.k8s.double.rbac import Attributes, Authorizer, User
from tests.k8s.double.registry import Registry, Write, drop_empty
from tests.k8s.double.routes import Route
from tests.k8s.double.watching import Watch

_PATCHES: dict[str, Callable[[Any, Any], Any]] = {
    "application/json-patch+json": patches.json_patch,
    "application/merge-patch+json": patches.merge_patch,
    "application/strategic-merge-patch+json": patches.strategic_patch,
}
_APPLY = "application/apply-patch+yaml"


@dataclass(frozen=True)
class Request:
    """One request of a client."""

    route: Route
    query: Mapping[str, str]
    body: bytes
    content_type: str
    agent: str
    user: User

    def write(self) -> Write:
        """Raises 422 for a dry run of an unknown kind."""
        dry = self.query.get("dryRun", "")
        if dry not in ("", "All"):
            raise ApiError(422, f'CreateOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: "{dry}": supported values: "All"')
        manager = self.query.get("fieldManager") or self.agent.split("/", 1)[0] or "unknown"
        return Write(manager, dry_run=dry == "All")


@dataclass
class Answer:
    """What a client gets: an object, bytes that are ready, or lines as they come."""

    body: Object | None = None
    raw: bytes = b""
    lines: Iterable[bytes | None] | None = None
    code: int = 200
    content_type: str = "application/json"
    warnings: list[str] = field(default_factory=list)


class Requests:
    """Carries out requests that have been let in."""

    def __init__(self, registry: Registry, authorizer: Authorizer, *, bookmark_interval_s: float) -> None:
        self.registry = registry
        self.authorizer = authorizer
        self.lists = Lists(registry.store)
        self.bookmark_interval_s = bookmark_interval_s
        self.logs: subresources.Logs | None = None
        """Where the output of containers is read; None while there are no kubelets."""

    def handle(self, request: Request) -> Answer:
        """Raises `ApiError` for everything that is refused."""
        route = request.route
        if route.subresource and route.subresource != "status":
            return Answer(**subresources.handle(self, request))
        return getattr(self, f"_{route.verb}")(request)  # type: ignore[no-any-return]

    # ---- reading

    def _get(self, request: Request) -> Answer:
        route = request.route
        return Answer(self.registry.get(route.resource, route.namespace, route.name))

    def _list(self, request: Request) -> Answer:
        page = self.lists.page(request.route.resource, request.route.namespace, request.query)
        return Answer(raw=page.encode(request.route.resource))

    def _watch(self, request: Request) -> Answer:
        route = request.route
        watch = Watch(self.registry.store, route.resource, route.namespace, request.query, bookmark_interval_s=self.bookmark_interval_s)
        return Answer(lines=watch)

    # ---- writing

    def decode(self, request: Request) -> Any:
        """The body as a value. Raises 400 where it is no JSON (or, for an apply, YAML), 415 for a type that is not served."""
        kind = request.content_type.partition(";")[0].strip()
        if kind == protobuf.CONTENT_TYPE:
            return protobuf.decode(request.body)
        try:
            if kind in (_APPLY, "application/yaml"):
                return yaml.safe_load(request.body)
            if kind in ("", "application/json", *_PATCHES):
                return json.loads(request.body)
        except (ValueError, yaml.YAMLError) as error:
            raise ApiError(400, f"the object provided is unrecognized: {error}") from error
        raise ApiError(415, f"the body of the request was in an unknown format - accepted media types include: application/json ({kind})")

    def checked(self, request: Request, obj: Any, answer: Answer) -> Object:
        """`obj` as its kind allows it; what was dropped is told in the answer's warnings. Raises 400."""
        route = request.route
        resource = route.resource
        if not isinstance(obj, dict):
            raise ApiError(400, f"the object provided is unrecognized (must be of type {resource.kind})")
        for name, wanted in (("kind", resource.kind), ("apiVersion", resource.api_version)):
            if obj.get(name, wanted) != wanted:
                told = f"the {name} in the data ({obj[name]}) does not match the expected {name} ({wanted})"
                raise ApiError(400, told)
        if not isinstance(obj.get("metadata", {}), dict):
            raise ApiError(400, f"json: cannot unmarshal into Go struct field {resource.kind}.metadata of type v1.ObjectMeta")
        if resource.namespaced and dig(obj, "metadata", "namespace", default=route.namespace) != route.namespace:
            raise ApiError(400, "the namespace of the provided object does not match the namespace sent on the request")
        obj = _without_nulls(obj)
        validation = request.query.get("fieldValidation") or "Warn"
        kept, unknown = schema.check(resource, obj, strict=validation == "Strict")
        if validation == "Warn":
            answer.warnings.extend(unknown)
        return kept

    def _create(self, request: Request) -> Answer:
        route = request.route
        answer = Answer(code=201)
        obj = self.checked(request, self.decode(request), answer)
        if route.resource.verbs == ("create",):
            answer.body = subresources.review(self, request, obj)
            return answer
        if route.resource.namespaced and not route.namespace:
            raise ApiError(405, "the server does not allow this method on the requested resource")
        answer.body = self.registry.create(route.resource, route.namespace, obj, request.write())
        return answer

    def _update(self, request: Request) -> Answer:
        route = request.route
        answer = Answer()
        obj = self.checked(request, self.decode(request), answer)
        answer.body = self.registry.update(
            route.resource, route.namespace, route.name, obj, subresource=route.subresource, write=request.write()
        )
        return answer

    def _patch(self, request: Request) -> Answer:
        kind = request.content_type.partition(";")[0].strip()
        if kind == _APPLY:
            return self._apply(request)
        if kind not in _PATCHES:
            accepted = ", ".join([*_PATCHES, _APPLY])
            raise ApiError(415, f"the body of the request was in an unknown format - accepted media types include: {accepted}")
        route = request.route
        answer = Answer()
        patch = self.decode(request)
        if kind != "application/json-patch+json" and not isinstance(patch, dict):
            raise ApiError(400, "error decoding patch: json: cannot unmarshal into Go value of type map[string]interface {}")
        answer.body = self.registry.edit(
            route.resource,
            route.namespace,
            route.name,
            lambda obj: self.checked(request, _PATCHES[kind](obj, patch), answer),
            subresource=route.subresource,
            write=request.write(),
        )
        return answer

    def _apply(self, request: Request) -> Answer:
        route = request.route
        resource: Resource = route.resource
        answer = Answer()
        wanted = self.checked(request, self.decode(request), answer)
        manager = request.query.get("fieldManager", "")
        if not manager:
            told = ("FieldValueRequired", "Required value: is required for apply patch", "fieldManager")
            raise invalid("meta.k8s.io", "PatchOptions", "", [told])
        if "apiVersion" not in wanted or "kind" not in wanted:
            raise ApiError(400, "Object 'Kind' is missing in the applied configuration")
        metadata = wanted.setdefault("metadata", {})
        if metadata.get("managedFields"):
            raise ApiError(400, "metadata.managedFields must be nil")
        if metadata.get("name", route.name) != route.name:
            raise ApiError(400, f"the name of the object ({metadata['name']}) does not match the name on the URL ({route.name})")
        metadata["name"] = route.name
        drop_empty(metadata)
        options: dict[str, Any] = {
            "manager": manager,
            "force": routes.is_true(request.query, "force"),
            "subresource": route.subresource,
        }
        write = Write(dry_run=request.write().dry_run)
        registry = self.registry
        with registry.store.lock:
            live = registry.look(resource, route.namespace, route.name)
            if live is None and not route.subresource:
                asked = Attributes("create", resource.group, resource.plural, route.namespace, route.name)
                self.authorizer.check(request.user, asked)
                new = apply.apply(resource, None, wanted, **options)
                write = Write(dry_run=write.dry_run, managed_fields=tuple(new["metadata"]["managedFields"]))
                answer.body, answer.code = registry.create(resource, route.namespace, new, write), 201
                return answer
            answer.body = registry.edit(
                resource,
                route.namespace,
                route.name,
                lambda old: apply.apply(resource, old, wanted, **options),
                subresource=route.subresource,
                write=write,
            )
        return answer

    # ---- removing

    def _options(self, request: Request) -> Object:
        options: Object = dict(self.decode(request) or {}) if request.body else {}
        grace = routes.number(request.query, "gracePeriodSeconds")
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        for name in ("propagationPolicy", "dryRun"):
            if request.query.get(name):
                options[name] = request.query[name]
        if "orphanDependents" in request.query:
            options["orphanDependents"] = routes.is_true(request.query, "orphanDependents")
        return options

    @staticmethod
    def _write_of(request: Request, options: Object) -> Write:
        dry = bool(options.get("dryRun"))
        return Write(request.write().manager, dry_run=dry)

    def _delete(self, request: Request) -> Answer:
        route = request.route
        options = self._options(request)
        gone = self.registry.delete(route.resource, route.namespace, route.name, options, self._write_of(request, options))
        answer = Answer()
        if route.resource is JOBS and not {"propagationPolicy", "orphanDependents"} & set(options):
            answer.warnings.append(deletion.JOBS_WARNING)
        waits = self.registry.still(route.resource, gone) is not None
        if waits or route.resource.returns_deleted:
            answer.body = gone
        else:
            details = {"name": name_of(gone), "kind": route.resource.plural, "uid": uid_of(gone)}
            if route.resource.group:
                details["group"] = route.resource.group
            answer.body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
        return answer

    def _deletecollection(self, request: Request) -> Answer:
        route = request.route
        if route.resource.namespaced and not route.namespace:
            raise ApiError(405, "the server does not allow this method on the requested resource")
        options = self._options(request)
        write = self._write_of(request, options)
        matches = matcher_of(request.query, route.resource)
        with self.registry.store.lock:
            found = [each.obj for each in self.registry.store.everything(route.resource, route.namespace) if matches(each.obj)]
            gone = [self.registry.delete(route.resource, route.namespace, name_of(each), options, write) for each in found]
            revision = str(self.registry.store.revision)
        metadata = {"resourceVersion": revision}
        return Answer({"kind": f"{route.resource.kind}List", "apiVersion": route.resource.api_version, "metadata": metadata, "items": gone})


def _without_nulls(value: Any) -> Any:
    """A field that is null is one that was not given. (Members of lists and values of string maps are never null.)"""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
