"""The paths below an object that are no state of it: eviction, binding, logs, scale, tokens, and the review of one's own rights."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tests.k8s.double import eviction, patches
from tests.k8s.double.errors import ApiError, conflict
from tests.k8s.double.kinds import PODS, SERVICEACCOUNTS, STATEFULSETS
from tests.k8s.double.objects import Object, dig, is_terminating, stamp
from tests.k8s.double.rbac import Attributes
from tests.k8s.double.registry import Registry

if TYPE_CHECKING:
    from tests.k8s.double.requests import Request, Requests

Logs = Callable[[Object, Mapping[str, str]], Iterator[bytes]]


def handle(requests: Requests, request: Request) -> dict[str, Any]:
    """The fields of the answer. Raises `ApiError`."""
    return _HANDLERS[request.route.subresource](requests, request)


def _evict(requests: Requests, request: Request) -> dict[str, Any]:
    route = request.route
    body = requests.decode(request)
    if not isinstance(body, dict) or body.get("kind", "Eviction") != "Eviction":
        raise ApiError(400, "the object provided is unrecognized (must be of type Eviction)")
    if dig(body, "metadata", "name", default=route.name) != route.name:
        raise ApiError(400, "name in URL does not match name in Eviction object")
    eviction.evict(requests.registry, route.namespace, route.name, body.get("deleteOptions") or {}, request.write())
    return {"body": {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}, "code": 201}


def bind(registry: Registry, pod: Object, node: str) -> None:
    """Give a pod its node. Raises 409 for a pod that has one or is going."""
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]

    def change(copy: Object) -> None:
        if copy["spec"].get("nodeName"):
            raise conflict("", "pods/binding", name, f'pod {name} is already assigned to node "{copy["spec"]["nodeName"]}"')
        if is_terminating(copy):
            raise conflict("", "pods/binding", name, f"pod {name} is being deleted, cannot be assigned to a host")
        copy["spec"]["nodeName"] = node
        conditions = [each for each in dig(copy, "status", "conditions", default=[]) if each["type"] != "PodScheduled"]
        scheduled = {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": stamp()}
        copy["status"]["conditions"] = [*conditions, scheduled]
        copy["status"].pop("nominatedNodeName", None)

    registry.edit(PODS, namespace, name, change, subresource="binding")


def _bind(requests: Requests, request: Request) -> dict[str, Any]:
    route = request.route
    target = dig(requests.decode(request), "target", "name")
    if not target:
        raise ApiError(422, f'Binding "{route.name}" is invalid: target.name: Required value')
    bind(requests.registry, requests.registry.get(PODS, route.namespace, route.name), target)
    return {"body": {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}, "code": 201}


def _log(requests: Requests, request: Request) -> dict[str, Any]:
    route = request.route
    pod = requests.registry.get(PODS, route.namespace, route.name)
    if requests.logs is None:
        raise ApiError(503, "no kubelet")
    return {"lines": requests.logs(pod, request.query), "content_type": "text/plain"}


def _scale(requests: Requests, request: Request) -> dict[str, Any]:
    route = request.route
    registry = requests.registry

    def shown(obj: Object) -> Object:
        kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
        return {
            "kind": "Scale",
            "apiVersion": "autoscaling/v1",
            "metadata": {key: obj["metadata"][key] for key in kept},
            "spec": {"replicas": obj["spec"]["replicas"]},
            "status": {"replicas": dig(obj, "status", "replicas", default=0)},
        }

    if request.route.verb == "get":
        return {"body": shown(registry.get(STATEFULSETS, route.namespace, route.name))}
    body = requests.decode(request)

    def change(obj: Object) -> None:
        scale = patches.merge_patch(shown(obj), body)
        replicas = dig(scale, "spec", "replicas")
        if not isinstance(replicas, int) or replicas < 0:
            raise ApiError(422, f'Scale.autoscaling "{route.name}" is invalid: spec.replicas: Invalid value: {replicas}')
        obj["metadata"]["resourceVersion"] = scale["metadata"]["resourceVersion"]
        obj["spec"]["replicas"] = replicas

    return {"body": shown(registry.edit(STATEFULSETS, route.namespace, route.name, change, write=request.write()))}


def _token(requests: Requests, request: Request) -> dict[str, Any]:
    route = request.route
    requests.registry.get(SERVICEACCOUNTS, route.namespace, route.name)
    seconds = dig(requests.decode(request), "spec", "expirationSeconds", default=3600)
    token = requests.authorizer.service_account_token(route.namespace, route.name)
    status = {"token": token, "expirationTimestamp": stamp(time.time() + seconds)}
    metadata = {"name": route.name, "namespace": route.namespace}
    body = {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "metadata": metadata, "spec": {}, "status": status}
    return {"body": body, "code": 201}


def review(requests: Requests, request: Request, obj: Object) -> Object:
    """The answer to "may I?" (SelfSubjectAccessReview)."""
    asked = dig(obj, "spec", "resourceAttributes", default={})
    what = asked.get("resource", "")
    if asked.get("subresource"):
        what = f"{what}/{asked['subresource']}"
    attributes = Attributes(asked.get("verb", ""), asked.get("group", ""), what, asked.get("namespace", ""), asked.get("name", ""))
    return {**obj, "status": {"allowed": requests.authorizer.allows(request.user, attributes)}}


_HANDLERS: dict[str, Callable[[Requests, Request], dict[str, Any]]] = {
    "eviction": _evict,
    "binding": _bind,
    "log": _log,
    "scale": _scale,
    "token": _token,
}
