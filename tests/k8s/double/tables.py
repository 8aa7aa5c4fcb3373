"""Lists as `kubectl get` shows them: the server, not the client, lays out the columns."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tests.k8s.double.kinds import CONFIGMAPS, EVENTS, JOBS, LEASES, NAMESPACES, NODES, PODS, SECRETS, SERVICES, STATEFULSETS, Resource
from tests.k8s.double.objects import Object, condition_of, dig, is_terminating, seconds_of

Cells = Callable[[Object], list[Any]]


def wants_table(accept: str) -> bool:
    return "as=Table" in accept


def age(text: str | None) -> str:
    """How long ago, as `kubectl` abbreviates it."""
    if not text:
        return "<unknown>"
    seconds = max(0, int(time.time() - seconds_of(text)))
    for unit, size, least in (("d", 86400, 2), ("h", 3600, 2), ("m", 60, 2)):
        if seconds >= size * least:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def pod_status(pod: Object) -> str:
    """The STATUS column: the reason that tells most."""
    status: str = dig(pod, "status", "reason") or dig(pod, "status", "phase", default="Unknown")
    for each in dig(pod, "status", "initContainerStatuses", default=[]):
        told = dig(each, "state", "waiting", "reason") or dig(each, "state", "terminated", "reason")
        if told and told not in ("Completed", "PodInitializing"):
            return f"Init:{told}"
    for each in dig(pod, "status", "containerStatuses", default=[]):
        told = dig(each, "state", "waiting", "reason") or dig(each, "state", "terminated", "reason")
        if told:
            status = told
    if is_terminating(pod):
        return "Unknown" if dig(pod, "status", "reason") == "NodeLost" else "Terminating"
    return status


def _pod(pod: Object) -> list[Any]:
    statuses = dig(pod, "status", "containerStatuses", default=[])
    ready = f"{sum(1 for each in statuses if each.get('ready'))}/{len(pod['spec']['containers'])}"
    return [ready, pod_status(pod), str(sum(each.get("restartCount", 0) for each in statuses))]


def _node(node: Object) -> list[Any]:
    status = {"True": "Ready", "False": "NotReady"}.get(dig(condition_of(node, "Ready"), "status"), "NotReady")
    if dig(node, "spec", "unschedulable"):
        status += ",SchedulingDisabled"
    return [status, "<none>", dig(node, "status", "nodeInfo", "kubeletVersion", default="")]


def _job(job: Object) -> list[Any]:
    told = next((kind for kind in ("Complete", "Failed", "Suspended") if dig(condition_of(job, kind), "status") == "True"), "Running")
    return [told, f"{dig(job, 'status', 'succeeded', default=0)}/{dig(job, 'spec', 'completions', default=1)}"]


def _event(event: Object) -> list[Any]:
    about = event["involvedObject"]
    return [event.get("type"), event.get("reason"), f"{about.get('kind', '').lower()}/{about.get('name')}", event.get("message")]


def _ports(service: Object) -> list[Any]:
    ports = ",".join(f"{each['port']}/{each['protocol']}" for each in dig(service, "spec", "ports", default=[]))
    return [dig(service, "spec", "type"), dig(service, "spec", "clusterIP", default="<none>"), ports or "<none>"]


_COLUMNS: dict[Resource, tuple[list[str], Cells]] = {
    PODS: (["Ready", "Status", "Restarts"], _pod),
    NODES: (["Status", "Roles", "Version"], _node),
    JOBS: (["Status", "Completions"], _job),
    EVENTS: (["Type", "Reason", "Object", "Message"], _event),
    SERVICES: (["Type", "Cluster-IP", "Port(s)"], _ports),
    CONFIGMAPS: (["Data"], lambda each: [len(each.get("data") or {}) + len(each.get("binaryData") or {})]),
    SECRETS: (["Type", "Data"], lambda each: [each["type"], len(each.get("data") or {})]),
    LEASES: (["Holder"], lambda each: [dig(each, "spec", "holderIdentity", default="")]),
    NAMESPACES: (["Status"], lambda each: [dig(each, "status", "phase")]),
    STATEFULSETS: (
        ["Ready"],
        lambda each: [f"{dig(each, 'status', 'readyReplicas', default=0)}/{dig(each, 'spec', 'replicas', default=1)}"],
    ),
}


def table(resource: Resource, objects: Iterable[Object], metadata: Object) -> Object:
    """A Table object over `objects`."""
    names, cells = _COLUMNS.get(resource, ([], lambda each: []))
    columns = [{"name": name, "type": "string", "format": "", "description": "", "priority": 0} for name in ["Name", *names, "Age"]]
    columns[0]["format"] = "name"
    rows = []
    for each in objects:
        row = [each["metadata"].get("name", ""), *cells(each), age(each["metadata"].get("creationTimestamp"))]
        shown = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": each["metadata"]}
        rows.append({"cells": row, "object": shown})
    return {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": columns, "rows": rows}


def table_of(resource: Resource, answer: Object) -> Object:
    """An object or a list as a table; what is neither (a Status) stays."""
    if answer.get("kind") == resource.kind:
        return table(resource, [answer], {"resourceVersion": answer["metadata"]["resourceVersion"]})
    if answer.get("kind") == f"{resource.kind}List":
        return table(resource, answer["items"], answer["metadata"])
    return answer


def table_lines(resource: Resource, lines: Iterable[bytes | None]) -> Iterator[bytes | None]:
    """The lines of a watch with a table of one row in each event."""
    for line in lines:
        if line is None:
            yield None
            continue
        event = json.loads(line)
        if event["type"] in ("ADDED", "MODIFIED", "DELETED"):
            event["object"] = table_of(resource, event["object"])
        elif event["type"] == "BOOKMARK":
            event["object"] = table(resource, [], event["object"]["metadata"])
        yield json.dumps(event).encode() + b"\n"
