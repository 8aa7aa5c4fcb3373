"""The output of containers, as the log subresource gives it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tests.k8s.double import routes
from tests.k8s.double.errors import ApiError
from tests.k8s.double.kubelet.runs import ContainerRun, PodRun
from tests.k8s.double.objects import Object, name_of

_LOOK_S = 0.02


def read(pod: Object, run: PodRun | None, query: Mapping[str, str], stopping: threading.Event) -> Iterator[bytes]:
    """The lines that are asked for; with `follow` those to come as well, until the container ends. Raises 400 where there are none."""
    listed = [each["name"] for each in pod["spec"]["containers"]]
    name = query.get("container") or (listed[0] if len(listed) == 1 else "")
    if not name:
        raise ApiError(400, f"a container name must be specified for pod {name_of(pod)}, choose one of: [{' '.join(listed)}]")
    if run is None:
        raise ApiError(400, f'container "{name}" in pod "{name_of(pod)}" is waiting to start: ContainerCreating')
    container = next((each for each in run.containers if each.name == name), None)
    if container is None:
        raise ApiError(400, f"container {name} is not valid for pod {name_of(pod)}")
    path = _path(pod, run, container, previous=routes.is_true(query, "previous"))
    tail, limit = routes.number(query, "tailLines"), routes.number(query, "limitBytes")
    content = path.read_bytes() if path.exists() else b""
    position = len(content)
    if tail is not None:
        lines = content.splitlines(keepends=True)
        content = b"".join(lines[len(lines) - tail :] if 0 < tail < len(lines) else [] if tail == 0 else lines)
    if limit is not None:
        content = content[:limit]
    if routes.is_true(query, "follow"):
        return _follow(path, content, position, lambda: container.is_running, stopping)
    return iter([content])


def _path(pod: Object, run: PodRun, container: ContainerRun, *, previous: bool) -> Path:
    if not container.ever_started:
        reason, message = container.waiting
        told = f": {message}" if message else ""
        raise ApiError(400, f'container "{container.name}" in pod "{name_of(pod)}" is waiting to start: {reason}{told}')
    start = container.restarts - 1 if previous else container.restarts
    if start < 0:
        raise ApiError(400, f'previous terminated container "{container.name}" in pod "{name_of(pod)}" not found')
    return run.log(container.name, start)


def _follow(path: Path, first: bytes, position: int, runs: Callable[[], bool], stopping: threading.Event) -> Iterator[bytes]:
    yield first
    while not stopping.is_set():
        more = runs()
        with path.open("rb") as log:
            log.seek(position)
            content = log.read()
        position += len(content)
        yield content
        if not more:
            return
        stopping.wait(_LOOK_S)
