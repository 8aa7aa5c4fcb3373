"""``python -m antinfer.launchers.ray.driver``: the process that is a driver of the Ray cluster.

It holds the actors, so they end when it does, and does what the master of the job orders over a socket. In a process of its own, because
Ray takes over signals and ends its process when the cluster is lost: neither the master nor the command should go with it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import closing, redirect_stdout
from pathlib import Path
from typing import Any, Final, TextIO

from antinfer.errors import AntinferError, InfraError, Interrupted, UsageError
from antinfer.launchers.leaving import leave
from antinfer.launchers.outcome import Outcome
from antinfer.launchers.parent import die_with_parent
from antinfer.launchers.port import WorkerOrder
from antinfer.launchers.ray.cluster import LOCAL, RayCluster
from antinfer.launchers.ray.facts import could_hold, why_waiting
from antinfer.launchers.ray.fleet import Fleet
from antinfer.launchers.ray.settings import RaySettings, request_of
from antinfer.telemetry.logs import configure_logging

_log = logging.getLogger("antinfer.launchers.ray")
_LOOK_S: Final = 1.0
_GATHER_S: Final = 0.1
"""Changes that come within this time are told together."""
_LONGEST_ORDER: Final = 1 << 24
_PATIENCE_S: Final = 600.0
"""How long a cluster that we had joined before may be away; a head that is restarted takes minutes."""
_RETRY_S: Final = 2.0


class Driver:
    """Between a master and its fleet."""

    def __init__(self, cluster: RayCluster, settings: RaySettings, out: TextIO) -> None:
        """
        Args:
            cluster: joined.
            settings: how workers are made.
            out: takes what workers say.
        """
        self._cluster = cluster
        self._settings = settings
        self._out = out
        self._changed = asyncio.Event()
        self._fleet = Fleet(cluster, settings, self._changed.set, self._say)
        self._master: asyncio.StreamWriter | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self._told = ""
        self._signals = 0

    async def run(self, address: str) -> None:
        """Serve at the path `address` until a signal has made all workers leave, or a second one comes.

        Raises `UsageError` when no worker can ever have a place, and whatever keeps us from following actors and nodes.
        """
        running = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            running.add_signal_handler(number, self._on_signal)
        await self._fleet.look()
        await asyncio.to_thread(self._check_places)
        Path(address).unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._serve, address, limit=_LONGEST_ORDER)
        looking = asyncio.create_task(self._look())
        looking.add_done_callback(lambda _: self._changed.set())
        async with server:
            while not (self._signals > 1 or (self._signals and self._fleet.is_empty)):
                await self._changed.wait()
                self._changed.clear()
                if looking.done():
                    looking.result()
                self._tell()
                await asyncio.sleep(_GATHER_S)
        looking.cancel()
        if self._master is not None:
            self._master.close()
        await asyncio.gather(*self._serving)

    # -- inside ------------------------------------------------------------------------------------------------------------------
    async def _look(self) -> None:
        """Look at the nodes again and again: Ray tells nobody of them. Whoever waits for one is told of that after a while, too."""
        while True:
            await asyncio.sleep(_LOOK_S)
            await self._fleet.look()
            self._changed.set()

    def _on_signal(self) -> None:
        self._signals += 1
        self._fleet.close()
        self._changed.set()

    def _check_places(self) -> None:
        """Raise, or say, that no node is large enough for a worker: on a cluster of our own none will come."""
        nodes = list(self._cluster.nodes().values())
        for worker_class, options in self._settings.options.items():
            request = request_of(options)
            if could_hold(nodes, request):
                continue
            why = why_waiting(nodes, request)
            if self._cluster.is_ours:
                raise UsageError(f"{worker_class} workers would never start: {why}", hint="Ask for less: see --actors.")
            _log.warning("%s workers wait for a larger node: %s", worker_class, why, extra={"action": "no_place"})

    async def _serve(self, orders: asyncio.StreamReader, master: asyncio.StreamWriter) -> None:
        """Carry out what a master orders; of two the later one, since the other has died."""
        serving = asyncio.current_task()
        assert serving is not None
        self._serving.add(serving)
        self._master, self._told = master, ""
        self._changed.set()
        try:
            while line := await orders.readline():
                self._obey(json.loads(line))
        except ConnectionResetError:
            pass  # killed: the next one comes
        finally:
            master.close()
            self._serving.discard(serving)
            if self._master is master:
                self._master = None

    def _obey(self, order: Mapping[str, Any]) -> None:
        for each in order.get("start", ()):
            self._fleet.start(WorkerOrder(each["name"], each["worker_class"], each["memory_bytes"], tuple(each["avoid"])))
        for name in order.get("stop", ()):
            self._fleet.stop(name, drain=order["drain"])

    def _say(self, worker: str, lines: list[str]) -> None:
        self._out.write("".join(f"{worker}: {line}\n" for line in lines))
        self._out.flush()

    def _tell(self) -> None:
        """Tell the master all that is seen, if it is not what it was told last."""
        if self._master is None or self._master.is_closing():
            return
        actors = json.dumps([facts.to_json() for facts in self._fleet.facts()])
        refused = {
            name: {"cause": why.cause.value, "severity": why.severity.value, "detail": why.detail}
            for name, why in self._fleet.take_refused().items()
        }
        if refused or actors != self._told:
            self._master.write(f'{{"actors": {actors}, "refused": {json.dumps(refused)}}}\n'.encode())
            self._told = actors


def main(arguments: list[str] | None = None) -> int:
    """Join, serve, leave; return the exit code of the process."""
    given = _parse(arguments)
    if given.parent is not None:
        die_with_parent(given.parent)
    configure_logging(verbose=given.verbose)
    out = sys.stdout
    try:
        # Ray prints there whatever happens on any node, tens of lines each time; what matters of it we are told otherwise.
        with (
            open(os.devnull, "w", encoding="utf-8") as nowhere,
            redirect_stdout(nowhere),
            closing(_connect(given.address, given.ready)) as cluster,
        ):
            text = sys.stdin.read()
            if text:  # else whoever started us has found no job
                asyncio.run(Driver(cluster, RaySettings.from_json(text), out).run(given.socket))
    except AntinferError as error:
        Outcome.of(error).write(given.outcome)
        return error.exit_code
    return Interrupted.exit_code


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m antinfer.launchers.ray.driver", description="Hold the workers of a job on Ray.")
    parser.add_argument("--address", default="", help="of the cluster; see antinfer run --address")
    parser.add_argument("--socket", required=True, help="where the master gives its orders")
    parser.add_argument("--ready", type=Path, required=True, help="is written once the cluster is joined; holds how it is reached (JSON)")
    parser.add_argument("--outcome", type=Path, required=True, help="is written when starting us again would not help")
    parser.add_argument("--parent", type=int, metavar="PID", help="die with this process, which started us")
    parser.add_argument("--verbose", action="store_true", help="say more")
    return parser.parse_args(arguments)


def _connect(address: str, ready: Path) -> RayCluster:
    """Join the cluster, the same one as before where we had joined one; that may be away for a while."""
    if not ready.exists():
        cluster = RayCluster.connect(address, ready.parent)
    else:
        before = json.loads(ready.read_text(encoding="utf-8"))
        cluster = _again(LOCAL if before["is_ours"] else before["address"], ready.parent)
    draft = ready.with_suffix(".tmp")
    draft.write_text(json.dumps({"address": cluster.address, "ip": cluster.ip, "is_ours": cluster.is_ours}), encoding="utf-8")
    os.replace(draft, ready)
    return cluster


def _again(address: str, folder: Path) -> RayCluster:
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return RayCluster.connect(address, folder)
        except InfraError as error:
            if time.monotonic() >= until:
                raise
            _log.warning("%s; trying on", error, extra={"action": "cluster_away"})
            time.sleep(_RETRY_S)


if __name__ == "__main__":
    leave(main())
