"""The composition root: puts a master together, serves it, and takes it down."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from antinfer.errors import ChangedError, InfraError, SourceError, UsageError
from antinfer.launchers.ahead import import_ahead
from antinfer.master import retrying
from antinfer.master.backoff import START_S, patiently
from antinfer.master.garbage import collect_rarely
from antinfer.master.jobfile import JobMark, Standing, check_mark
from antinfer.rpc.exposure import check_listening
from antinfer.storage import layout, rounds
from antinfer.storage.jobs import open_input, open_output
from antinfer.storage.lean import keep_pandas_out
from antinfer.storage.place import OutputPlace

if TYPE_CHECKING:
    from antinfer.launchers.kubernetes.settings import KubernetesSettings
    from antinfer.launchers.port import Launcher
    from antinfer.master.controller.scaler import Scaler
    from antinfer.master.reign import Job, Master
    from antinfer.master.store.embedded import EmbeddedServer
    from antinfer.master.streams import Streams
    from antinfer.rpc.channel import Tls
    from antinfer.spec.schema import JobSpec

_log = logging.getLogger("antinfer.master")
_GOODBYE_S: Final = 0.5
_MOST_ACTORS: Final = 100
"""Workers on Ray where the job does not say."""


@dataclass(frozen=True, slots=True)
class MasterOptions:
    """How a master is run, beside what the job file says."""

    store_url: str = field(default="", repr=False)
    """Server to use; empty: the job file's, and without one there a Valkey of our own."""
    listen: str = "127.0.0.1:0"
    """``HOST:PORT`` (port 0: any free one) or ``unix:///path``."""
    token: str = field(default="", repr=False)
    """Token that workers must show; empty: anybody may call."""
    admin_token: str = field(default="", repr=False)
    """Token of those who may drain, cancel and look; empty: that of the workers."""
    tls: Tls | None = None
    insecure: bool = False
    """Listen beyond this machine without mutual TLS and token too."""
    state_dir: str = ""
    """Directory of our own Valkey; empty: beside a local output, else below the home directory."""
    force: bool = False
    """Plan however many parts; go on although pipeline or code have changed."""
    retry: int = 0
    """Number of the retry round to do with pipeline and code as they are now; 0: do the job, or the round that is under way."""
    check: bool = False
    """Look at the engine's invariants after every batch."""
    ttl_s: float | None = None
    """Silence in seconds after which a worker counts as gone; None: the engine's own. Tests shorten it."""
    kubernetes: KubernetesSettings | None = None
    """How to make workers as pods; None: they are not pods."""
    ray: str = ""
    """Socket of the driver that makes workers as Ray actors. Neither this nor `kubernetes`: whoever started us starts them."""
    ready: Callable[[str], None] | None = None
    """Is given the address once the master listens. Not called when the output is complete already."""


def import_rest() -> None:
    """Import now what ruling nearly any job takes, for those who have yet to hear which job it is."""
    keep_pandas_out()
    import_ahead(
        "grpc",
        "antinfer.master.store.embedded",
        "antinfer.master.store.redis",
        "antinfer.master.reign",
        "antinfer.master.service.admin",
        "antinfer.master.service.work",
        "antinfer.storage.planfile",
        "antinfer.storage.posix",
        "antinfer.storage.sources.parquet",
    )


def run_master(spec: JobSpec, options: MasterOptions) -> int:
    """Rule the job until it is done; return 0. Call it from the main thread.

    Raises:
        UsageError: There is no such address to listen on, or it would listen to a network without mutual TLS and token.
        FencedError: Another master rules the job.
        Interrupted: SIGTERM, SIGINT or a cancellation ended it; the same call resumes.
        AntinferError: Anything else; its `exit_code` is the command's.
    """
    from antinfer.rpc.channel import parse_addresses

    parse_addresses(options.listen)
    if not options.insecure:
        check_listening(options.listen, tls=options.tls, token=options.token)
    place = open_output(spec)
    mark = JobMark.of(spec, place.uri)
    is_complete, has_begun = patiently(
        "reading the output", lambda: (_is_complete(place, mark, options), JobMark.read(place) is not None), threading.Event(), START_S
    )
    if is_complete or options.retry:
        # A retry is not even begun on another input.
        _check_input(spec, place)
    if is_complete:
        _log.info("%s is complete already", place.uri, extra={"action": "already_complete"})
        return 0
    # Whatever is wrong with the output of a job that has begun was not wrong from the start: its workers wait for it too.
    patience_s = spec.patience if has_begun else START_S
    patiently("writing to the output", place.check_writable, threading.Event(), patience_s)
    server = None
    url = options.store_url or spec.store.url
    if not url:
        server = _start_server(place, mark.job, options.state_dir)
        url = server.url
    try:
        asyncio.run(_rule(spec, place, mark, url, server, options, patience_s))
        if server is not None:
            server.remove()
    finally:
        if server is not None:
            server.stop()
    _log.info("%s is complete", place.uri, extra={"action": "done"})
    return 0


def _is_complete(place: OutputPlace, mark: JobMark, options: MasterOptions) -> bool:
    """Tell whether there is nothing to do; raises when the job must not go on with this output."""
    if options.retry:
        return not retrying.is_due(place, mark, options.retry)
    if check_mark(place, mark, force=options.force) is Standing.NEW or place.read(layout.SUCCESS) is None:
        return False
    return rounds.is_finished(place)


def _start_server(place: OutputPlace, job: str, state_dir: str) -> EmbeddedServer:
    """Start our own Valkey. Before anything else makes threads: it is tied to the life of the calling one."""
    from antinfer.master.store.embedded import EmbeddedServer

    directory = Path(state_dir) if state_dir else Path.home() / ".local" / "state" / "antinfer" / job
    if not state_dir and "://" not in place.uri:
        directory = Path(place.uri, layout.folder(layout.STATE))
    server = EmbeddedServer(directory)
    # It comes up while we import the rest; the store waits for it.
    server.start(wait=False)
    return server


def _check_input(spec: JobSpec, place: OutputPlace) -> None:
    """An output that is complete for other input than there is now would be taken for the new one's."""
    from antinfer.storage.planfile import PlanFile, changed_files

    state = PlanFile(place).load()
    try:
        files = open_input(spec, state.listing.schema if state.listing else None).list_files()
    except (SourceError, InfraError) as error:
        _log.warning("%s is complete, but its input cannot be looked at any more: %s", place.uri, error, extra={"action": "input_gone"})
        return
    changes = changed_files(state.listing.files, files) if state.listing else ""
    if changes:
        raise ChangedError(
            f"{place.uri} is complete, for an input that has changed since: {changes}",
            hint="Choose another sink.path to process the input as it is now.",
        )


async def _rule(
    spec: JobSpec, place: OutputPlace, mark: JobMark, url: str, server: EmbeddedServer | None, options: MasterOptions, patience_s: float
) -> None:
    from antinfer.master.planner import Planner
    from antinfer.master.reign import Job, Master, engine_config
    from antinfer.master.store.redis import RedisStore
    from antinfer.master.streams import Streams
    from antinfer.master.troubles import Troubles

    troubles = Troubles()
    store = RedisStore(url, mark.job, durability=spec.store.durability, server=server, patience_s=spec.patience, troubles=troubles)
    streams = Streams()
    planner = Planner(spec, place, force=options.force, troubles=troubles)
    job = Job(spec, place, mark, spec.sink.type, engine_config(spec, mark.job, options.ttl_s))
    scaler = _scaler(job, options)
    master = Master(
        job,
        store,
        streams,
        planner,
        troubles=troubles,
        patience_s=patience_s,
        scaler=scaler,
        force=options.force,
        retry=options.retry,
        check=options.check,
    )
    collect_rarely()
    running = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        running.add_signal_handler(number, master.stop)
    async with _serving(master, streams, options) as address:
        try:
            # Opened after the port: a wrong port is a quick error, and a worker that comes early only has to wait.
            await store.open()
            if options.ready is not None:
                options.ready(address)
            # Beyond the pod it is known by the name that workers are told.
            await master.run((options.kubernetes.master if options.kubernetes else "") or address)
        finally:
            if scaler is not None:
                await scaler.close()
            await store.close()


def _scaler(job: Job, options: MasterOptions) -> Scaler | None:
    """Make what looks after the workers; None: that is not ours to do."""
    settings = options.kubernetes
    if settings is not None:
        make, most = partial(_on_kubernetes, job, settings), settings.most
    elif options.ray:
        make, most = partial(_on_ray, options.ray), _MOST_ACTORS
    else:
        return None
    from antinfer.master.controller.scaler import Scaler

    return Scaler(make, job.spec.workers, name=job.spec.name, job=job.mark.job, most=most)


def _on_kubernetes(job: Job, settings: KubernetesSettings, address: str) -> Launcher:
    from antinfer.launchers.kubernetes.api import Api
    from antinfer.launchers.kubernetes.launcher import KubernetesLauncher

    return KubernetesLauncher(Api.connect(settings.kubeconfig), settings, job=job.mark.job, master=address)


def _on_ray(driver: str, address: str) -> Launcher:
    # Where this master listens, the driver was told by whoever started both.
    from antinfer.launchers.ray.launcher import RayLauncher

    return RayLauncher(driver)


@contextlib.asynccontextmanager
async def _serving(master: Master, streams: Streams, options: MasterOptions) -> AsyncIterator[str]:
    """Serve for the time of the block; gives the address. Raises `UsageError` when it is in use or cannot be had."""
    import grpc

    from antinfer.master.service.admin import AdminService, add_admin_service
    from antinfer.master.service.auth import TokenInterceptor, Tokens
    from antinfer.master.service.work import WorkService, add_work_service
    from antinfer.rpc.channel import SERVER_OPTIONS, server_credentials

    interceptors = [TokenInterceptor(Tokens(options.token, options.admin_token))] if options.token or options.admin_token else []
    server = grpc.aio.server(interceptors=interceptors, options=SERVER_OPTIONS)
    add_work_service(server, WorkService(streams, master.lookup, master.document))
    add_admin_service(server, AdminService(streams, master, master.cancelled))
    try:
        if options.tls is None:
            port = server.add_insecure_port(options.listen)
        else:
            port = server.add_secure_port(options.listen, server_credentials(options.tls))
    except RuntimeError as error:
        raise UsageError(
            f"cannot listen on {options.listen}: {error}", hint="Is the port in use by another master? Port 0 takes any free one."
        ) from error
    await server.start()
    address = options.listen if options.listen.startswith("unix:") else f"{options.listen.rpartition(':')[0]}:{port}"
    _log.info("listening on %s", address, extra={"action": "listen", "address": address})
    try:
        yield address
    finally:
        # Where it has never ruled, workers wait for what there is to do.
        master.leave()
        await server.stop(_GOODBYE_S)
