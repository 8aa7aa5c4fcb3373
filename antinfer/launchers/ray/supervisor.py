"""``antinfer run --launcher ray``: a master beside the command, and a driver of the Ray cluster where its workers are."""

from __future__ import annotations

import json
import secrets
import shlex
import shutil
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from antinfer.errors import Interrupted, UsageError
from antinfer.launchers.certificates import make_certificates, write_identity
from antinfer.launchers.children import Child
from antinfer.launchers.masters import master_child
from antinfer.launchers.outcome import Outcome
from antinfer.launchers.processes import LineSink
from antinfer.launchers.ray.cluster import require_ray
from antinfer.launchers.ray.crew import DriverCrew
from antinfer.launchers.ray.settings import SERVER_NAME, ray_settings
from antinfer.launchers.restarts import RestartBudget
from antinfer.launchers.sockets import socket_folder
from antinfer.launchers.supervisor import POLL_S, RESUMES, RunOptions, Supervisor

if TYPE_CHECKING:
    from antinfer.rpc.values import Status
    from antinfer.spec.schema import JobSpec


@dataclass(frozen=True, slots=True)
class RayOptions:
    """Where the cluster is, and what is asked of it."""

    address: str = ""
    """See `antinfer.launchers.ray.cluster.RayCluster.connect`."""
    listen: str = ""
    """Where the master listens, as ``HOST:PORT``; empty: where the nodes see this one, at a free port."""
    actors: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Laid over what is asked for, by `antinfer.launchers.ray.settings.TEMPLATES`."""


class RaySupervisor(Supervisor):
    """Runs one job with workers on a Ray cluster."""

    def __init__(self, options: RunOptions, ray: RayOptions, *, on_line: LineSink, on_status: Callable[[Status | None], None]) -> None:
        """
        Args:
            options: how.
            ray: where.
            on_line: takes every line that a process of ours, or a worker, writes.
            on_status: takes the master's view; see `Supervisor`.

        Raises:
            UsageError: Ray is not installed.
        """
        require_ray()
        super().__init__(options, on_line=on_line, on_status=on_status)
        self._ray = ray
        self._folder = Path(socket_folder())
        self._socket, self._ready = self._folder / "driver.sock", self._folder / "cluster"
        self._token_file, self._driver_outcome = self._folder / "token", self._folder / "driver-outcome"
        self._outcome_file = self._folder / "outcome"
        arguments = ["--address", ray.address, "--socket", str(self._socket), "--ready", str(self._ready)]
        arguments += ["--outcome", str(self._driver_outcome), *(["--verbose"] if options.verbose else [])]
        self._driver = Child("ray", "antinfer.launchers.ray.driver", arguments, RestartBudget(5, 60.0, "ray"), takes_input=True)
        self._crew = DriverCrew(self._driver, lambda: Outcome.read(self._driver_outcome))

    def _begin(self, load: Callable[[], JobSpec]) -> JobSpec:
        from antinfer.rpc.channel import Tls
        from antinfer.storage.jobs import open_output

        self._driver.start()
        self._driver.hear(self._on_line)
        spec = load()
        if self._options.workers is not None:
            exactly = {"min": self._options.workers, "max": self._options.workers}
            spec = spec.model_copy(update={"workers": spec.workers.model_copy(update=exactly)})
        self._token = secrets.token_urlsafe(32)
        self._token_file.write_text(self._token, encoding="ascii")
        self._token_file.chmod(0o600)
        certificates = make_certificates([SERVER_NAME])
        own, people = (write_identity(certificates, who, self._folder) for who in ("master", "admin"))
        self._tls = Tls(*people, SERVER_NAME)
        cluster = self._await_cluster()
        self._address = self._ray.listen or _free_address(cluster["ip"])
        settings = ray_settings(
            spec,
            self._ray.actors,
            master=self._address,
            token=self._token,
            certificates=certificates,
            output=open_output(spec).uri,
            verbose=self._options.verbose,
        )
        self._driver.give(settings.to_json())
        more = ["--token-file", str(self._token_file), *_tls_arguments(own), "--ray", str(self._socket)]
        how = self._options
        self._master = master = master_child(
            self._address, str(self._outcome_file), *more, force=how.force, verbose=how.verbose, retry=how.retry
        )
        master.start()
        master.hear(self._on_line)
        master.give(spec.model_dump_json())
        where = "a Ray of its own on this machine" if cluster["is_ours"] else f"the Ray cluster at {cluster['address']}"
        ask = [str(spec.sink.path), "--token-file", str(self._token_file), *_tls_arguments(people), "--tls-name", SERVER_NAME]
        self._on_line("ray", f"workers run on {where}; antinfer status {shlex.join(ask)}")
        return spec

    def _clean_up(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    # -- inside ------------------------------------------------------------------------------------------------------------------
    def _await_cluster(self) -> dict[str, Any]:
        """Wait until the driver has joined the cluster; return how that is reached."""
        while not self._ready.exists():
            if self._signals:
                raise Interrupted("stopped before the job began", hint=RESUMES)
            self._crew.tend()
            time.sleep(POLL_S)
        found: dict[str, Any] = json.loads(self._ready.read_text(encoding="utf-8"))
        return found


def _tls_arguments(files: tuple[Path, Path, Path]) -> list[str]:
    ca, cert, key = map(str, files)
    return ["--tls-ca", ca, "--tls-cert", cert, "--tls-key", key]


def _free_address(host: str) -> str:
    """Return an address on this machine that is free now. A master that is started again must be found where the first one was."""
    try:
        with socket.create_server((host, 0)) as taken:
            return f"{host}:{taken.getsockname()[1]}"
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host}, by which the nodes of the cluster know this machine: {error.strerror}",
            hint="Give --listen HOST:PORT, an address of this machine that they reach.",
        ) from error
