"""A stage in front that works in the predictor's process, at once or aside: order, errors, memory, hanging, the end."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from antinfer.worker.predictors import spawn
from antinfer.worker.predictors.process import PredictorProcess
from tests.integration.hosts import wait_until
from tests.integration.predictorbench import Bench

pytestmark = pytest.mark.timeout(120)


def test_raw_rows_go_through_the_front_first(make_bench: Any) -> None:
    bench: Bench = make_bench("Overlaps", 4, column="raw")
    front = bench.stage_of("Decode")
    bench.behind(front, 4)
    bench.start(front=front, sizing=None)
    bench.put(0, 12)
    bench.wait(12)
    assert not bench.root.bad
    assert [bench.found[at]["x"] for at in range(12)] == [10 * at for at in range(12)]
    assert bench.flow.statistics()[1].fused_rows == 12


@pytest.mark.parametrize("target", ["Overlaps", "Tells", "Plain"])
def test_what_the_front_makes_aside_is_whole_in_order_and_its_bad_rows_are_named(make_bench: Any, target: str) -> None:
    bench: Bench = make_bench(target, 4, column="raw")
    bench.stage = replace(bench.stage, columns=("x",))
    front = bench.stage_of("DecodeAside", seconds=0.01, bad=[5, 8, 11], hungry=3)
    bench.behind(front, 4)
    bench.start(front=front, sizing=None)
    bench.put(0, 40)
    bench.wait(40)
    assert {at: bad.error for at, bad in bench.root.bad.items()} == dict.fromkeys([5, 8, 11], "no picture")
    assert {at: row["x"] for at, row in bench.found.items()} == {at: 10 * at for at in range(40) if at not in (5, 8, 11)}


def test_a_batch_overtakes_those_that_the_front_still_works_on_but_none_that_it_has_done(make_bench: Any) -> None:
    bench: Bench = make_bench("Tells", 4, seconds=0.5, column="raw")
    front = bench.stage_of("DecodeAside", seconds=0.2)
    process = PredictorProcess(spawn.start(1), bench.stage, 1, front=front, rows=4)
    try:
        message = process.receive(60)
        assert message is not None and message.data["is"] == "ready"
        for slot in range(5):
            process.send(slot, [pa.record_batch({"x" if slot else "raw": [slot] * 4})], fused=not slot)
        answers = [process.receive(30) for _ in range(7)]
        assert [each.data["slot"] for each in answers if each is not None and each.data["is"] in ("aside", "made")] == [0, 0]
        slots = [each.data["slot"] for each in answers if each is not None and each.data["is"] == "result"]
        # The two that fill the model's queue were there before; the others, although sent long before, were not.
        assert slots == [1, 2, 0, 3, 4]
    finally:
        process.stop()
        process.close()


def test_the_time_of_batches_that_are_overtaken_is_counted_once_and_whole(make_bench: Any) -> None:
    bench: Bench = make_bench("Tells", 4, seconds=0.1, column="raw")
    process = PredictorProcess(spawn.start(1), bench.stage, 1, front=bench.stage_of("DecodeAside", seconds=0.6), rows=4)
    try:
        assert process.receive(60) is not None
        began = time.monotonic()
        process.send(0, [pa.record_batch({"raw": [0] * 4})], fused=True)
        time.sleep(0.2)
        process.send(1, [pa.record_batch({"x": [1] * 4})])
        seconds = {}
        while len(seconds) < 2:
            message = process.receive(30)
            assert message is not None
            if message.data["is"] == "result":
                seconds[message.data["slot"]] = message.data["seconds"]
        assert list(seconds) == [1, 0]
        assert seconds[1] < 0.2 and seconds[0] >= 0.4
        assert sum(seconds.values()) == pytest.approx(time.monotonic() - began, abs=0.15)
    finally:
        process.stop()
        process.close()


@pytest.mark.parametrize("most", [2, 4, 6])
def test_a_row_that_fits_alone_is_not_held_for_too_large_because_others_are_on_the_device(make_bench: Any, most: int) -> None:
    bench: Bench = make_bench("ComputesInMemory", 4, column="raw", most=most)
    front = bench.stage_of("DecodeIntoMemory", most=most)
    bench.behind(front, 4)
    bench.start(front=front, sizing=None)
    bench.put(0, 40)
    bench.wait(40)
    assert not bench.root.bad
    assert {at: row["x"] for at, row in bench.found.items()} == {at: 10 * at for at in range(40)}


def test_nothing_of_a_batch_outlives_the_error_of_the_front(make_bench: Any) -> None:
    bench: Bench = make_bench("Tells", 4, column="raw")
    front = bench.stage_of("DecodeAside", bad=[1])
    process = PredictorProcess(spawn.start(1), bench.stage, 1, front=front, rows=4)
    try:
        kept = []
        for _ in range(20):
            process.send(0, [pa.record_batch({"raw": [0, 1, 2, 3]})], fused=True)
            while (message := process.receive(60)) is not None and message.data["is"] != "result":
                pass
            assert message is not None and [row for row, _, _ in message.data["bad"]] == [1]
            kept.append(message.data["kept"])
        assert not any(kept), "a slab that is kept is lost, and another one is made"
    finally:
        process.stop()
        process.close()


def test_a_batch_that_fails_lives_while_it_waits_for_the_front(make_bench: Any) -> None:
    """Otherwise it would be held to blame when the front hangs."""
    bench: Bench = make_bench("Tells", 4, column="raw", bad=[9])
    front = bench.stage_of("DecodeAside", seconds=1.5)
    process = PredictorProcess(spawn.start(1), bench.stage, 1, front=front, rows=4)
    try:
        process.send(0, [pa.record_batch({"raw": [0, 1, 2, 3]})], fused=True)
        process.send(1, [pa.record_batch({"x": [9, 10, 11, 12]})])
        said: list[tuple[str, Any]] = []
        while ("result", 0) not in said:
            message = process.receive(60)
            assert message is not None
            said.append((message.data["is"], message.data.get("slot")))
        assert said[said.index(("aside", 0)) : said.index(("made", 0))].count(("alive", None)) >= 5
        assert said.index(("made", 0)) < said.index(("result", 1))
    finally:
        process.stop()
        process.close()


def test_a_front_that_is_at_work_is_not_given_what_nobody_waits_for_any_more(make_bench: Any, tmp_path: Path) -> None:
    bench: Bench = make_bench("Tells", 4, column="raw")
    log = tmp_path / "log"
    front = bench.stage_of("DecodeAside", seconds=1.0, log=str(log))
    process = PredictorProcess(spawn.start(1), bench.stage, 1, front=front, rows=4)
    try:
        for slot in range(5):
            process.send(slot, [pa.record_batch({"raw": [slot] * 4})], fused=True)
        wait_until(log.exists, "the first one in the front")
    finally:
        process.stop()
    assert process._process.returncode == 0
    process.close()
    assert log.read_text().splitlines() == ["0"]
