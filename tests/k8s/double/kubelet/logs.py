"""The output of containers, as the log subresource gives it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

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
    tail, limit = routes.number(query, "tailLines"), routes.number(query, "limitBytes")
    # Held open: the folder goes with the pod, what was said can still be read to the end.
    log = _path(pod, run, container, previous=routes.is_true(query, "previous")).open("rb")
    content = log.read()
    if tail is not None:
        lines = content.splitlines(keepends=True)
        content = b"".join(lines[len(lines) - tail :] if 0 < tail < len(lines) else [] if tail == 0 else lines)
    if limit is not None:
        content = content[:limit]
    if routes.is_true(query, "follow"):
        return _follow(log, content, lambda: container.is_running, stopping)
    log.close()
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


def _follow(log: BinaryIO, first: bytes, runs: Callable[[], bool], stopping: threading.Event) -> Iterator[bytes]:
    with log:
        yield first
        while not stopping.is_set():
            more = runs()
            yield log.read()
            if not more:
                return
            stopping.wait(_LOOK_S)
