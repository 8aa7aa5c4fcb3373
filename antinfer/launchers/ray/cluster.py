"""Ray itself, as far as a fleet needs it. Its errors become ours here."""

from __future__ import annotations

import logging
import os
import re
import secrets
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, cast

from antinfer.errors import AntinferError, InfraError, JobFileError, UsageError
from antinfer.launchers.ray.actor import WorkerActor
from antinfer.launchers.ray.facts import Death, NodeFacts, node_facts

LOCAL: Final = "local"
AUTO: Final = "auto"
_PROBE_S: Final = 5.0
_AT_ONCE: Final = 4
"""Calls that an actor answers side by side; two are under way at most."""
_NODE_ID_LABEL: Final = "ray.io/node-id"
_NODE_DIED: Final = "its node has died"
_NO_MEMORY: Final = "running low on memory"
_MISSING: Final = re.compile(r"No module named '[^']+'")
"""What Ray says of deaths that have no class of their own."""
_HEAD: Final = re.compile(r"^The actor died unexpectedly before finishing this task\. .*?ip: \S+ ")
_END: Final = re.compile(r" (?:Some common causes include|OOM kill reason|Traceback|The actor never ran)")
_LONGEST: Final = 1_000
"""Before and after these are identifiers and advice."""
_WHERE: Final = "Give --address HOST:PORT, or `local` for a Ray of the job's own on this machine."
_JOIN: Final = "A driver runs on a node of the cluster: `ray job submit -- antinfer run ... --launcher ray` starts one there."


def require_ray() -> None:
    """Raise `UsageError` when Ray is not installed."""
    import importlib.util

    if importlib.util.find_spec("ray") is None:
        raise UsageError("Ray is not installed", hint="pip install 'antinfer[ray]'")


class RayCluster:
    """A cluster that this process is a driver of."""

    def __init__(self, address: str, *, is_ours: bool) -> None:
        """
        Args:
            address: of its head, as ``HOST:PORT``.
            is_ours: it was started for us on this machine, and ends with us.
        """
        import ray

        self._ray: Any = ray
        self._make = ray.remote(WorkerActor)
        self.error: type[Exception] = ray.exceptions.RayError
        """What calls of an actor fail with when it has died."""
        self.address = address
        self.is_ours = is_ours
        # Workers of a cluster on this machine alone need no more than its inner network.
        self.ip: str = "127.0.0.1" if is_ours else self._ray.util.get_node_ip_address()
        self._ids: dict[str, str] = {}
        """Of nodes, by name."""

    @classmethod
    def connect(cls, address: str, folder: Path) -> RayCluster:
        """Join a cluster: at `address`; ``auto``: that of RAY_ADDRESS, or one that runs on this machine; ``local``: a new one on this
        machine, which ends with us; empty: as ``auto`` where there is one, else ``local``.

        Args:
            address: of the cluster.
            folder: that nobody else can read; keeps the token of a cluster of our own.

        Raises:
            UsageError: There is no such cluster, or it runs another Python or another Ray.
            InfraError: It cannot be reached.
        """
        wanted = address or os.environ.get("RAY_ADDRESS", "") or AUTO
        if "://" in wanted:
            raise UsageError(f"{wanted} is not where a driver joins: a Ray client cannot look at nodes", hint=_JOIN)
        if wanted == AUTO:
            wanted = _running_here(address) or ("" if address else LOCAL)
        if not wanted:
            raise UsageError("no Ray cluster runs on this machine, and RAY_ADDRESS names none", hint=_WHERE)
        if wanted != LOCAL:
            _probe(wanted)
            # Somebody listens there. Unless it is a cluster, Ray would try for a quarter of an hour; this is read when it is imported.
            os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "3")
            os.environ.setdefault("RAY_py_gcs_connect_timeout_s", "10")
        else:
            _keep_strangers_out(folder)
        return cls._join(wanted)

    @classmethod
    def _join(cls, address: str) -> RayCluster:
        import ray
        from ray.exceptions import AuthenticationError

        try:
            ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        except AuthenticationError as error:
            raise UsageError(f"the Ray cluster at {address} does not let us in: {error}") from error
        except Exception as error:
            # Ray has no class for most of what can be wrong here.
            raise _explained(address, error) from error
        return cls(ray.get_runtime_context().gcs_address, is_ours=address == LOCAL)

    def close(self) -> None:
        """Leave; actors that are left end."""
        self._ray.shutdown()

    def nodes(self) -> dict[str, NodeFacts]:
        """Ask for all nodes, by id. Takes some ms."""
        draining = _draining()
        found = {each["NodeID"]: node_facts(each, draining) for each in self._ray.nodes()}
        self._ids = {node.name: id_ for id_, node in found.items()}
        return found

    def start(self, settings: str, name: str, options: Mapping[str, Any], avoid: tuple[str, ...]) -> Any:
        """Ask for an actor that keeps the worker `name`; return its handle. It ends when nobody has that any more.

        Args:
            settings: `RaySettings` as JSON.
            name: of the worker.
            options: what is asked for.
            avoid: names of nodes that it must not be on.

        Raises:
            JobFileError: Ray does not take these options.
        """
        chosen: dict[str, Any] = {"scheduling_strategy": "SPREAD", **{key: value for key, value in options.items() if value is not None}}
        unwanted = [self._ids[node] for node in avoid if node in self._ids]
        if unwanted:
            labels = {_NODE_ID_LABEL: f"!in({','.join(unwanted)})"}
            chosen["label_selector"] = labels | (chosen.get("label_selector") or {})
        try:
            # Not restarted by Ray: whether another worker is needed, and where, is for the controller to say.
            made = self._make.options(max_restarts=0, max_task_retries=0, max_concurrency=_AT_ONCE, **chosen)
            return made.remote(settings, name)
        except (ValueError, TypeError) as error:
            said = "".join(map(str, error.args))
            raise JobFileError(f"Ray does not take what is said about actors: {said}") from error

    def kill(self, handle: Any) -> None:
        """End an actor at once, whatever it does."""
        self._ray.kill(handle)


def explain_death(error: BaseException) -> tuple[Death, str]:
    """Return how an actor died a call of which failed with `error`, and the gist of Ray's words."""
    from ray.exceptions import OutOfMemoryError, RayActorError, RuntimeEnvSetupError

    text = " ".join(str(error).split())
    gist = _END.split(_HEAD.sub("", text), maxsplit=1)[0][:_LONGEST]
    missing = _MISSING.search(text)
    if missing is not None:
        return Death.NOT_STARTED, f"{missing[0]} on the node: install the same packages on all nodes of the cluster"
    if isinstance(error, OutOfMemoryError) or _NO_MEMORY in text:
        return Death.OUT_OF_MEMORY, gist
    if isinstance(error, RuntimeEnvSetupError):
        return Death.NOT_STARTED, text[:_LONGEST]
    if isinstance(error, RayActorError) and error.actor_init_failed:
        return Death.NOT_STARTED, gist
    if isinstance(error, RayActorError) and error.preempted:
        return Death.PREEMPTED, gist
    return (Death.NODE_LOST if _NODE_DIED in text else Death.KILLED), gist


# -- inside ---------------------------------------------------------------------------------------------------------------------------
def _keep_strangers_out(folder: Path) -> None:
    """Let a Ray that is started from here serve nobody without its token. It listens on all addresses, and runs whatever it is given."""
    path = folder / "ray-token"
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
        file.write(secrets.token_hex(32))
    # A token that somebody has set for another cluster would come first.
    os.environ.pop("RAY_AUTH_TOKEN", None)
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}
    from ray import _raylet

    # Ray has read the mode when it was imported, which looking for a cluster needs. Without types.
    inner: Any = _raylet
    inner.Config.initialize("")


def _running_here(address: str) -> str:
    """Return the address of the cluster that `ray.init` would find on this machine for `address`, `AUTO` or none; empty: there is none.

    Asked by itself, because Ray leaves the address of a cluster behind that has died, and would try that one for minutes.
    """
    from ray._private.services import canonicalize_bootstrap_address

    try:
        # None, which means something else than "auto", is missing in its types.
        found: str | None = canonicalize_bootstrap_address(cast(str, address or None))
        if found is None:
            return ""
        _probe(found)
    except (ConnectionError, InfraError):
        return ""
    return found


def _probe(address: str) -> None:
    """Raise at once where nobody listens at `address`: Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), _PROBE_S).close()
    except ValueError as error:
        raise UsageError(f"{address} is no address of a Ray cluster", hint=_WHERE) from error
    except OSError as error:
        raise InfraError(f"no Ray cluster answers at {address}: {error.strerror or error}", hint=_WHERE) from error


def _explained(address: str, error: Exception) -> AntinferError:
    """Return our error for what `ray.init` failed with."""
    text = str(error)
    if text.startswith("Version mismatch"):
        words = " ".join(text.removeprefix("Version mismatch:").split())
        return UsageError(
            f"the Ray cluster runs other versions than this command. {words}",
            hint="Run antinfer with the Python and the Ray of the cluster, for instance on its head.",
        )
    if isinstance(error, ConnectionError):
        return InfraError(f"no Ray cluster answers at {address}: {text}", hint="The port is that of its head, not of its dashboard.")
    return InfraError(f"the Ray cluster at {address} cannot be joined: {text}", hint=_JOIN)


def _draining() -> dict[str, int]:
    """Return the nodes that were told to leave the cluster, by id, with when they will be gone (ms since 1970).

    Ray has no public call for it; its own libraries use this one, which old versions lack. Without it a node that leaves is a node that
    dies.
    """
    from ray._private.state import state

    look: Callable[[], dict[str, int]] | None = getattr(state, "get_draining_nodes", None)
    return {} if look is None else look()
