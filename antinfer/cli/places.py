"""What a command names a job by: the address of its master, its output place, or its name on Kubernetes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from antinfer.errors import MasterError, UsageError
from antinfer.spec.load import absolute_path

if TYPE_CHECKING:
    from antinfer.launchers.kubernetes.api import Api
    from antinfer.launchers.kubernetes.jobs import Jobs
    from antinfer.rpc.client import AdminClient
    from antinfer.storage.place import OutputPlace

_PREFIX: Final = "antinfer-"
"""Of the names of all jobs on Kubernetes."""
_TRIES: Final = 3
"""People wait; a master has more patience with its API server."""


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """Which cluster is meant; empty: the usual one."""

    namespace: str = ""
    context: str = ""
    kubeconfig: str = ""

    def connect(self) -> Api:
        from antinfer.launchers.kubernetes.api import Api

        return Api.connect(self.kubeconfig, self.context, tries=_TRIES)

    def jobs(self) -> Jobs:
        """Return the jobs of the namespace. Raises `UsageError` when no cluster is known here."""
        from antinfer.launchers.kubernetes.jobs import Jobs

        return Jobs(self.connect(), self.namespace or "default")


@dataclass(frozen=True, slots=True)
class Credentials:
    """How we prove to a master at an address who we are, and how it proves that it is the one."""

    token_file: Path | None = None
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_name: str = ""
    insecure: bool = False
    """The token may travel in plain text."""


@dataclass(frozen=True, slots=True)
class Where:
    """A job, as the command line names it."""

    text: str
    cluster: ClusterOptions = ClusterOptions()
    credentials: Credentials = Credentials()

    @property
    def is_submitted(self) -> bool:
        """It is the name of a job on Kubernetes."""
        is_name = self.text.startswith(_PREFIX) and not {":", "/"} & set(self.text) and not Path(self.text).is_dir()
        return is_name or self.cluster != ClusterOptions()

    @property
    def place(self) -> OutputPlace | None:
        """The output place that it is; None for an address. Raises `UsageError` when it is neither."""
        from antinfer.rpc.channel import parse_addresses
        from antinfer.storage.place import open_place

        is_path = "://" in self.text or self.text.startswith((".", "/", "~")) or Path(self.text).is_dir()
        if self.text.startswith("unix:") or not is_path:
            parse_addresses(self.text)
            return None
        return open_place(absolute_path(self.text, str(Path.cwd())))

    @contextmanager
    def reach(self) -> Iterator[AdminClient]:
        """Give a client of the job's master for the time of the block.

        Raises:
            UsageError: The job is not known.
            MasterError: No master works on it.
            ApiError: The API server refuses, or cannot be reached.
        """
        if self.is_submitted:
            jobs = self.cluster.jobs()
            with jobs.reach(jobs.find(self.text)) as admin:
                yield admin
            return
        from antinfer.rpc import channel
        from antinfer.rpc.client import AdminClient

        how = self.credentials
        token = "" if how.token_file is None else channel.read_token(how.token_file)
        tls = channel.tls_of(how.tls_ca, how.tls_cert, how.tls_key, how.tls_name)
        place = self.place
        address = self.text if place is None else _address_in(place)
        with AdminClient(address, token=token, tls=tls, insecure=how.insecure) as admin:
            if place is not None:
                _check_place(admin, place)
            yield admin


def _address_in(place: OutputPlace) -> str:
    from antinfer.master.jobfile import master_address

    address = master_address(place)
    if address is None:
        raise MasterError(f"no master is known to work on {place.uri}", hint=_start(place))
    return address


def _check_place(admin: AdminClient, place: OutputPlace) -> None:
    """Ask a master that was found through its output place: it may be long gone, and somebody else at its address."""
    try:
        found = admin.status()
    except MasterError as error:
        if "no master answers" not in str(error):
            raise
        raise MasterError(f"no master works on {place.uri} now; the last one listened at {admin.address}", hint=_start(place)) from error
    if found.output != place.uri:
        raise MasterError(f"no master works on {place.uri} now; at {admin.address} is one of {found.output}", hint=_start(place))


def _start(place: OutputPlace) -> str:
    return f"go on with `antinfer resume {place.uri}`, or start with `antinfer run JOB`"


def not_for_addresses(what: str) -> UsageError:
    """Return the error of a command that is for jobs on Kubernetes alone."""
    return UsageError(f"{what} of jobs on Kubernetes alone", hint="Give the name of one, as `antinfer submit` printed it.")
