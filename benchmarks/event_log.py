"""What it costs the control plane that the master writes down everything it is told.

The load of `benchmarks.control_plane`, eight tasks a request, keeps all cores busy: what the log takes of their time is what it takes of
the rate. Masters that write no log run in turn with those that do; their rates are compared pair by pair, which on a busy machine tells
little. Beside it, what the log takes of one core for each task, and of the disk.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

from antinfer.core.events import Requested
from antinfer.core.journal import Batch, Encoder, Told, digest, worth_whole
from antinfer.storage.eventlog import encode_frame
from benchmarks.bare_master import USAGE
from benchmarks.control_plane import load
from benchmarks.core_steps import Reign
from benchmarks.master_process import master_process
from benchmarks.report import Result

_HELD = 8
_SHARDS = 1_000_000
_WORKERS = 64
_TOGETHER = 9
"""Events of one batch."""


def measure(quick: bool) -> list[Result]:
    """Return the control plane's rate with the log as a share of its rate without, and what the log costs by the task."""
    seconds, pairs = (1.0, 1) if quick else (5.0, 5)
    rates: dict[str, list[float]] = {"full": [], "off": []}
    shares: list[float] = []
    for n in range(pairs):
        # Who comes first changes, so that a machine that gets busier or hotter favours none.
        for level in ("full", "off") if n % 2 else ("off", "full"):
            with tempfile.TemporaryDirectory(prefix="antinfer-bench-") as folder:
                before = _processor_seconds()
                with master_process(_SHARDS, Path(folder), level) as address:
                    rates[level].append(asyncio.run(load(address, _HELD, seconds)))
                if level == "full":
                    usage = json.loads(Path(folder, USAGE).read_text())
                    shares.append(100 * usage["log"] / (_processor_seconds() - before))
            print(f"  log {level}: {rates[level][-1]:.0f} tasks/s", file=sys.stderr, flush=True)
    ratios = tuple(full / off for full, off in zip(rates["full"], rates["off"], strict=True))
    costs = [_cost(20 if quick else 200) for _ in range(1 if quick else 3)]
    return [
        Result("event_log", "processor time of the log, of all", tuple(shares), "%", 2, at_least=False),
        Result("event_log", "rate with the log, of that without", ratios, "x", details={"tasks_per_second": rates}),
        Result("event_log", "one core's time for a task", tuple(1e6 * cost for cost, _, _ in costs), "us", 20, at_least=False),
        Result("event_log", "of which the loop's", tuple(100 * share for _, share, _ in costs), "%"),
        Result("event_log", "as stored, for a task", tuple(size for _, _, size in costs), "bytes", 100, at_least=False),
    ]


def _processor_seconds() -> float:
    """Return the processor time of this process and of all that it has started and seen end, and those of theirs."""
    mine, others = os.times(), resource.getrusage(resource.RUSAGE_CHILDREN)
    return mine.user + mine.system + others.ru_utime + others.ru_stime


def _cost(rounds: int) -> tuple[float, float, float]:
    """Return seconds of one core for a task, the loop's share of them, and bytes for a task."""
    reign = Reign.begin(_SHARDS // 10, _WORKERS)
    reign.engine.take_changes()
    reign.engine.story.keep_fresh()
    encoder = Encoder()
    loops = writers = 0.0
    tasks = size = 0
    first = 1
    for _ in range(rounds):
        made = reign.next_round()
        lines: list[str] = []
        for at in range(0, len(made), _TOGETHER):
            events = made[at : at + _TOGETHER]
            ordered = [command for event in events for command in reign.engine.step(event)]
            changes = reign.engine.take_changes()
            reign.take_in(ordered)
            started = time.process_time()
            told = reign.engine.story.take_fresh()
            sum(map(len, changes.puts.values()))
            noted = time.process_time()
            proof = digest(changes, whole=worth_whole(first, changes))
            lines.append(encoder.line(Batch(first, tuple(events), proof, len(ordered)), changes.puts))
            lines.append(encoder.line(Told(tuple(told))))
            writers += time.process_time() - noted
            loops += noted - started
            first += len(events)
            tasks += sum(len(event.request.commits) for event in events if isinstance(event, Requested))
        started = time.process_time()
        size += len(encode_frame(lines))
        writers += time.process_time() - started
    return (loops + writers) / tasks, loops / (loops + writers), size / tasks
