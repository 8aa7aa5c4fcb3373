"""A stage host that computes nothing: it speaks the link like the real one, and stages names without objects.

The job document steers it: ``{"chunk": rows per staged prefix, "pause": seconds per chunk, "sizes": rows of each shard,
"teardown": seconds}``.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
import threading
import time
from queue import Empty, SimpleQueue

from antinfer.core.ids import LeaseId, staged_name
from antinfer.core.ranges import Rows
from antinfer.core.records import CommitRecord, StagedObject
from antinfer.rpc.values import StageStats
from antinfer.worker import hostlink


def main() -> None:
    link = socket.socket(fileno=int(sys.argv[1]))
    orders: SimpleQueue[hostlink.ToHost] = SimpleQueue()

    def listen() -> None:
        with link.makefile("rb") as lines:
            for line in lines:
                orders.put(hostlink.decode(line))  # type: ignore[arg-type]
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    setup = orders.get()
    assert isinstance(setup, hostlink.Setup)
    settings = json.loads(setup.document)
    link.sendall(hostlink.encode(hostlink.Ready(0.0, 2)))
    work(link, orders, settings)


def work(link: socket.socket, orders: SimpleQueue[hostlink.ToHost], settings: dict[str, object]) -> None:
    jobs: dict[LeaseId, tuple[int, Rows]] = {}
    done = 0

    def say(message: hostlink.FromHost) -> None:
        link.sendall(hostlink.encode(message))

    while True:
        try:
            order = orders.get(timeout=float(settings["pause"]) if jobs else None)  # type: ignore[arg-type]
        except Empty:
            lease, (shard, rows) = next(iter(jobs.items()))
            stop = min(rows.stop, rows.start + int(settings["chunk"]))  # type: ignore[call-overload]
            name = staged_name(lease, shard, rows.start, stop, secrets.token_hex(4))
            say(hostlink.Staged(lease, CommitRecord(shard, rows.start, stop, name, (StagedObject("part"),), stop - rows.start)))
            done += stop - rows.start
            say(hostlink.Progress(done, (StageStats("fake", rows_in=done, busy=1.0),)))
            jobs[lease] = (shard, Rows(stop, rows.stop))
            if stop == rows.stop:
                del jobs[lease]
            continue
        match order:
            case hostlink.Work(lease=lease, shard=shard, rows=rows):
                size = settings["sizes"][shard.index]  # type: ignore[index]
                if rows.stop > size:
                    say(hostlink.Sized(lease, size))
                jobs[lease] = (shard.index, Rows(rows.start, min(rows.stop, size)))
            case hostlink.Cut(lease=lease, rows=rows):
                if lease in jobs:
                    shard_id, old = jobs.pop(lease)
                    left = Rows(max(old.start, rows.start), min(old.stop, rows.stop))
                    if left.start < left.stop:
                        jobs[lease] = (shard_id, left)
            case hostlink.Regrant(old=former, new=new):
                if former in jobs:
                    jobs[new] = jobs.pop(former)
            case hostlink.YieldRest(lease=lease):
                jobs.pop(lease, None)
                say(hostlink.Released(lease))
            case hostlink.Stop():
                time.sleep(float(settings["teardown"]))  # type: ignore[arg-type]
                os._exit(0)


if __name__ == "__main__":
    main()
