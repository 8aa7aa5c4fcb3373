"""The bench with real threads, batches as a run cuts them, and the gauges."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pyarrow as pa
import pytest

from antinfer.worker.pipeline.assembler import Assembled, BatchLimits
from antinfer.worker.pipeline.buckets import Buckets
from antinfer.worker.pipeline.pieces import Piece, Root
from antinfer.worker.pipeline.splitter import Outcome
from antinfer.worker.profiling.bench import Bench
from antinfer.worker.profiling.cutting import cut
from antinfer.worker.profiling.gauges import GilProbe, cpu_seconds


def piece(rows, begin=0, root=None):
    return Piece(root or Root(0), begin, begin + rows, pa.record_batch({"x": list(range(begin, begin + rows))}))


class Copies:
    """Threads that take what the bench gives, and pause over each batch."""

    def __init__(self, bench, pauses, ran=None):
        self.bench = bench
        self.ran = ran
        self.seen = [[] for _ in pauses]
        self.threads = [threading.Thread(target=self.run, args=(number, pause)) for number, pause in enumerate(pauses)]
        for thread in self.threads:
            thread.start()

    def run(self, number, pause):
        while (call := self.bench.take(0)) is not None:
            time.sleep(pause)
            self.seen[number].append(call.rows)
            self.bench.finish(0, call, Outcome(call.batch(lambda batch: batch).slice(0, self.ran), ran=self.ran), pause)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.bench.stop()
        for thread in self.threads:
            thread.join(10)
        assert not any(thread.is_alive() for thread in self.threads)


def test_each_copy_counts_by_its_own_clock():
    bench = Bench(2)
    with Copies(bench, [0.02, 0.3]) as copies:
        tally = bench.measure([Assembled([piece(10)])], 0.4)
        again = bench.measure([Assembled([piece(10)])], 0.1)

    # One makes 500 rows/s and the other 33, whose last batch ends long after the time is over.
    assert 150 < tally.rows_per_second < 560
    assert tally.bytes_out == 8 * tally.rows
    assert min(map(len, copies.seen)) >= 4, "each of two measurements has each copy do one batch before and one while it counts"
    assert again.rows >= 20


def test_rows_that_were_not_run_do_not_count():
    bench = Bench(1)
    with Copies(bench, [0.01], ran=4) as copies:
        tally = bench.measure([Assembled([piece(10)])], 0.1)

    assert 0 < tally.rows <= 4 * len(copies.seen[0])
    assert tally.bytes_out == 8 * tally.rows


def test_failure_of_a_copy_ends_the_measurement():
    bench = Bench(1)
    threading.Thread(target=bench.fail, args=(ValueError("broken"),)).start()

    with pytest.raises(ValueError, match="broken"):
        bench.measure([Assembled([piece(1)])], 10)


def test_who_waits_is_woken():
    bench, left = Bench(1), threading.Event()
    waiting = threading.Thread(target=lambda: (bench.take(0, want=False, wake=left.is_set), None))
    waiting.start()
    left.set()
    bench.wake_up(0)
    waiting.join(10)

    assert not waiting.is_alive()


def test_batches_are_full_and_repeat_what_is_too_little():
    root = Root(0)
    pieces = [piece(7, 0, root), piece(6, 7, root)]

    assert [call.rows for call in cut(pieces, BatchLimits(5), None, "here")] == [5, 5]
    (large,) = cut(pieces, BatchLimits(30), None, "here")
    values = large.batch(lambda batch: batch).column("x").to_pylist()
    assert values == [*range(13), *range(13), *range(4)]


def test_batches_that_are_cut_by_size_do_not_grow_without_end():
    calls = cut([piece(100)], BatchLimits(1 << 20, max_bytes=800), None, "here")

    assert len(calls) >= 2
    assert {call.rows for call in calls} == {100}


def test_batches_of_buckets_hold_rows_of_one_length():
    root = Root(0)
    short, long = (Piece(root, at, at + 4, pa.record_batch({"n": [length] * 4})) for at, length in ((0, 3), (4, 300)))
    calls = cut([short, long], BatchLimits(8), Buckets("n", (10,), None), "here")

    found = [set(call.batch(lambda batch: batch).column("n").to_pylist()) for call in calls]
    assert all(len(lengths) == 1 for lengths in found)
    assert {length for lengths in found for length in lengths} == {3, 300}


def test_cpu_of_child_processes_counts():
    before = cpu_seconds()
    code = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass\nprint(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        used = cpu_seconds() - before
        child.kill()

    assert used >= 0.29


def share_held(work) -> float:
    over = threading.Event()

    def run():
        while not over.is_set():
            work()

    thread = threading.Thread(target=run)
    thread.start()
    probe = GilProbe()
    time.sleep(0.5)
    share = probe.stop()
    over.set()
    thread.join()
    return share


def test_gil_is_seen_to_be_held():
    # Others on this machine may hide a part of what is there, so the best of three counts.
    assert max(share_held(lambda: sum(range(1000))) for _ in range(3)) > 0.6
    assert min(share_held(lambda: time.sleep(0.01)) for _ in range(3)) < 0.3
