"""The stage host as a real process, with real predictor processes: what goes in comes out once, in order, whatever user code does."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from antinfer.core.causes import Cause
from antinfer.core.ids import LeaseId
from antinfer.core.messages import FailureKind
from antinfer.core.ranges import Rows
from antinfer.core.records import CommitRecord
from antinfer.storage import layout, quarantine, rowhash
from antinfer.worker import hostlink
from tests.integration.hosts import Job, collect, is_alive, wait_until

CODE = '''
import os, signal, time
import numpy as np

class Identity:
    def __call__(self, batch):
        return {"y": batch["x"]}

class Sizes:
    def __call__(self, batch):
        return {"y": batch["x"], "seen": np.full(len(batch["x"]), len(batch["x"]))}

class Seen:
    def __call__(self, batch):
        return {"seen": [",".join(batch)] * len(batch["x"])}

class Fails:
    def __init__(self, bad):
        self.bad = set(bad)
    def __call__(self, batch):
        if self.bad & set(batch["x"].tolist()):
            raise ValueError("row is bad")
        return {"y": batch["x"]}

class Dies(Fails):
    def __call__(self, batch):
        if self.bad & set(batch["x"].tolist()):
            os.kill(os.getpid(), signal.SIGKILL)
        return {"y": batch["x"]}

class Slow:
    def __call__(self, batch):
        time.sleep(0.05)
        return {"y": batch["x"]}

class Stuck:
    def __call__(self, batch):
        if (batch["x"] >= 200).any():
            time.sleep(600)
        return {"y": batch["x"]}

class NoSetup:
    def setup(self):
        raise RuntimeError("no weights here")
    def __call__(self, batch):
        return batch

class Short:
    def __call__(self, batch):
        return {"y": batch["x"][:-1]}

class NoDict:
    def __call__(self, batch):
        return 42

class Objects:
    def __call__(self, batch):
        return {"y": [object() for _ in batch["x"]]}

class Turns:
    calls = 0
    def __call__(self, batch):
        self.calls += 1
        return {"y": batch["x"].astype("float32" if self.calls > 1 else "float64")}

class Clash:
    def __call__(self, batch):
        return {"name": batch["x"]}

class Broken:
    def __call__(self, batch):
        return {"y": batch["no_such_column"]}

class Keeps:
    """Holds on to batches, and fills one array again and again."""
    def __init__(self):
        self.batches = []
        self.out = None
    def __call__(self, batch):
        self.batches.append(batch)
        return {"y": self.batches[0].column("x"), "own": batch.column("x")}

def plus_one(batch):
    batch["x"] += 1
    return batch

def even(row):
    return row["x"] % 2 == 0

def spread(row):
    return [{"child": row["x"] * 10 + i} for i in range(int(row["x"]) % 4)]

def spread_fails(row):
    if row["x"] == 5:
        raise KeyError("five")
    return spread(row)

def twice(batch):
    return {"twice": 2 * batch["child"]}

class ChildFails:
    def __call__(self, batch):
        if (batch["child"] == 71).any():
            raise ValueError("child")
        return {"child": batch["child"], "twice": batch["child"] * 2}
'''


def make_input(folder: Path, rows: list[int]) -> pa.Table:
    """Write one file for each count; x counts through all of them."""
    (folder / "input").mkdir(parents=True)
    tables, at = [], 0
    for index, count in enumerate(rows):
        x = np.arange(at, at + count)
        names = pa.array([None if i % 7 == 3 else f"name-{i}" for i in x])
        table = pa.table({"x": x, "name": names, "nested": pa.array([[int(i), None] for i in x], pa.list_(pa.int32()))})
        pq.write_table(table, folder / "input" / f"{index:03d}.parquet", row_group_size=100)
        tables.append(table)
        at += count
    return pa.concat_tables(tables)


def read_quarantine(job: Job, records: list[CommitRecord]) -> pa.Table:
    names = [layout.final_name("quarantine", record, "") for record in records if record.rows_quarantined]
    return pa.concat_tables([quarantine.read(job.place, name) for name in names])


def test_identity_with_carryover_keeps_rows_order_types_and_nulls(tmp_path: Path) -> None:
    table = make_input(tmp_path, [1000, 1, 333, 64])
    job = Job(tmp_path, CODE, pipeline=[{"predict": "steps:Identity", "batch_size": 64}], carryover=["name", "nested"])

    records = job.run()

    expected = pa.table({"name": table["name"], "nested": table["nested"], "y": table["x"]})
    assert job.table().equals(expected)
    assert ds.dataset(job.output).to_table().num_rows == 1398
    assert [record.rows_out for record in records] == [1000, 1, 333, 64]
    for record in records:
        assert record.row_hash == rowhash.hash_range(record.shard, record.start, record.stop)
        assert (record.worker, record.code, record.attempt) == ("worker-1", "code-1", 1)
        assert record.schema == records[0].schema != ""
        name = layout.final_names(record, "parquet")[-1]
        carried = job.place.read_part_record(name)
        assert carried is not None and carried.key == record.key
        assert record.size_bytes == os.path.getsize(os.path.join(job.output, name))
    assert not job.place.list_staging()
    assert not os.listdir(os.path.join(job.output, layout.folder(layout.SPOOL)))


def test_batches_are_full_across_leases(tmp_path: Path) -> None:
    make_input(tmp_path, [50] * 8)
    job = Job(tmp_path, CODE, pipeline=[{"predict": "steps:Sizes", "batch_size": 100}])

    job.run()

    sizes = job.table()["seen"].to_numpy()
    # All leases are sent at once, so nothing but the end of the work may cut a batch short.
    assert (sizes == 100).mean() >= 0.75
    assert job.table()["y"].to_pylist() == list(range(400))


@pytest.mark.parametrize(("keys", "seen"), [({}, "x,name,nested"), ({"columns": ["nested", "x"]}, "nested,x")], ids=["all", "named"])
def test_all_source_columns_are_seen_unless_named(tmp_path: Path, keys: dict[str, object], seen: str) -> None:
    make_input(tmp_path, [10])
    job = Job(tmp_path, CODE, pipeline=[{"predict": "steps:Seen", **keys}], carryover=["name"])
    job.run()
    assert set(job.table()["seen"].to_pylist()) == {seen}


def test_map_filter_flat_map_gather_and_two_predictors(tmp_path: Path) -> None:
    table = make_input(tmp_path, [300, 200])
    job = Job(
        tmp_path,
        CODE,
        pipeline=[
            {"map_batches": "steps:plus_one", "batch_size": 40, "concurrency": 3},
            {"filter": "steps:even"},
            {"flat_map": "steps:spread"},
            {"predict": "steps:ChildFails", "batch_size": 16, "concurrency": 2},
            {"gather": {"into": "children"}},
        ],
        carryover=["x", "name"],
    )

    records = job.run()

    kept = [x for x in range(500) if (x + 1) % 2 == 0]
    assert job.table()["x"].to_pylist() == kept
    expected = [[{"child": (x + 1) * 10 + i, "twice": 2 * ((x + 1) * 10 + i)} for i in range((x + 1) % 4)] for x in kept]
    assert job.table()["children"].to_pylist() == expected
    assert job.table()["name"].to_pylist() == [table["name"][x].as_py() for x in kept]
    assert [record.stop for record in records] == [300, 200]


def test_functions_may_run_in_processes(tmp_path: Path) -> None:
    make_input(tmp_path, [120])
    stages = [{"filter": "steps:even"}, {"flat_map": "steps:spread"}, {"map_batches": "steps:twice"}]
    job = Job(tmp_path, CODE, pipeline=[{**stage, "workers_as": "processes", "batch_size": 16} for stage in stages], carryover=["x"])

    job.run()

    expected = [(x, 2 * (x * 10 + i)) for x in range(0, 120, 2) for i in range(x % 4)]
    assert list(zip(*(job.table()[name].to_pylist() for name in ("x", "twice")), strict=True)) == expected


def test_many_processes_do_not_run_out_of_descriptors(tmp_path: Path) -> None:
    make_input(tmp_path, [400])
    job = Job(tmp_path, CODE, pipeline=[{"predict": "steps:Identity", "concurrency": 6, "batch_size": 4}], carryover=["x"])
    with job.host(files=40) as host:
        host.wait_for(hostlink.Ready)
        host.send(job.work(0))
        assert [record.rows_out for record in collect(host, [job.work(0)])] == [400]


def test_flat_map_at_the_end_links_children_to_their_row(tmp_path: Path) -> None:
    make_input(tmp_path, [101])
    job = Job(tmp_path, CODE, pipeline=[{"flat_map": "steps:spread"}], carryover=["x"], sink={"row_ids": True})

    (record,) = job.run()

    expected = [(x, x * 10 + i) for x in range(101) for i in range(x % 4)]
    result = job.table()
    assert list(zip(result["x"].to_pylist(), result["child"].to_pylist(), strict=True)) == expected
    assert result["_offset"].to_pylist() == [x for x, _ in expected]
    assert set(result["_shard"].to_pylist()) == {0}
    assert record.rows_out == len(expected) and record.rows_quarantined == 0


def test_a_failing_child_takes_its_whole_row_to_quarantine(tmp_path: Path) -> None:
    make_input(tmp_path, [20])
    pipeline = [{"flat_map": "steps:spread_fails"}, {"predict": "steps:ChildFails", "batch_size": 8}, {"gather": {"into": "c"}}]
    job = Job(tmp_path, CODE, pipeline=pipeline, carryover=["x"], quarantine={"keep_columns": ["name"]})

    records = job.run()

    assert job.table()["x"].to_pylist() == [x for x in range(20) if x not in (5, 7)]
    bad = read_quarantine(job, records).to_pydict()
    assert bad["offset"] == [5, 7]
    assert bad["stage"] == ["spread_fails", "ChildFails"]
    assert "KeyError" in bad["error"][0] and "child" in bad["error"][1]


def test_a_row_that_raises_is_found_and_quarantined_with_its_traceback(tmp_path: Path) -> None:
    make_input(tmp_path, [500])
    bad = [17, 18, 250, 499]
    stage = {"predict": "steps:Fails", "batch_size": 128, "args": {"bad": bad}}
    job = Job(tmp_path, CODE, pipeline=[stage], carryover=["x"], quarantine={"keep_columns": ["name", "x"]})

    (record,) = job.run()

    assert job.table()["x"].to_pylist() == [x for x in range(500) if x not in bad]
    assert (record.rows_out, record.rows_quarantined) == (496, 4)
    assert [staged.kind for staged in record.objects] == ["quarantine", "part"]
    assert record.row_hash == rowhash.hash_rows(0, [x for x in range(500) if x not in bad])
    rows = read_quarantine(job, [record]).to_pydict()
    assert rows["offset"] == bad
    assert rows["error"] == ["ValueError: row is bad"] * 4
    assert 'raise ValueError("row is bad")' in rows["traceback"][0] and "calls.py" not in rows["traceback"][0]
    assert rows["input"][0] == {"name": None, "x": 17}


def test_a_row_that_kills_its_predictor_is_found_and_quarantined(tmp_path: Path) -> None:
    make_input(tmp_path, [64])
    stage = {"predict": "steps:Dies", "batch_size": 8, "args": {"bad": [21]}}
    job = Job(tmp_path, CODE, pipeline=[stage], carryover=["x"])

    (record,) = job.run()

    assert job.table()["x"].to_pylist() == [x for x in range(64) if x != 21]
    rows = read_quarantine(job, [record]).to_pydict()
    assert rows["offset"] == [21] and "SIGKILL" in rows["error"][0]


def test_a_predictor_killed_from_outside_loses_nothing(tmp_path: Path) -> None:
    make_input(tmp_path, [2000])
    job = Job(tmp_path, CODE, pipeline=[{"predict": "steps:Slow", "batch_size": 100}])
    with job.host() as host:
        host.wait_for(hostlink.Ready)
        (victim,) = host.children()
        host.send(job.work(0))
        os.kill(victim, signal.SIGKILL)
        (record,) = collect(host, [job.work(0)])
        assert host.children() != [victim]
        assert host.stop() == 0
    assert (record.rows_out, record.rows_quarantined) == (2000, 0)


def test_predictors_killed_at_random_lose_nothing(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    make_input(tmp_path, [700, 1, 900, 400])
    pipeline = [{"predict": "steps:Slow", "batch_size": 20, "concurrency": 2}]
    job = Job(tmp_path, CODE, pipeline=pipeline, carryover=["x", "name"], commit_interval=0.2)
    work = [job.work(index) for index in range(4)]
    with job.host() as host:
        host.wait_for(hostlink.Ready)
        for item in work:
            host.send(item)
        over = threading.Event()
        killed: list[int] = []

        def kill() -> None:
            while len(killed) < 5 and not over.wait(random.uniform(0.2, 1.0)):
                victims = host.children()
                if len(victims) == 2:
                    killed.append(random.choice(victims))
                    os.kill(killed[-1], signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            records = collect(host, work)
        finally:
            over.set()
            killer.join()
        assert host.stop() == 0
    assert killed
    job.publish(records)
    assert job.table()["x"].to_pylist() == job.table()["y"].to_pylist() == list(range(2001))
    assert sum(record.rows_quarantined for record in records) == 0


def test_a_missing_input_file_is_named(tmp_path: Path) -> None:
    make_input(tmp_path, [10, 10])
    job = Job(tmp_path, CODE, pipeline=[{"predict": "steps:Identity"}])
    (tmp_path / "input" / "001.parquet").unlink()
    failure = job.fails()
    assert failure.lease is None and "001.parquet" in failure.error and not failure.traceback


def test_rows_that_kill_the_worker_go_to_quarantine_unseen(tmp_path: Path) -> None:
    make_input(tmp_path, [30])
    job = Job(tmp_path, CODE, pipeline=[{"predict": "steps:Dies", "args": {"bad": [10]}}], quarantine={"keep_columns": ["x"]})

    records = job.run([job.work(0, 0, 10, n=0), job.work(0, 10, 11, n=1, quarantine="kills its worker"), job.work(0, 11, 30, n=2)])

    alone = records[1]
    assert [staged.kind for staged in alone.objects] == ["record", "quarantine"]
    assert (alone.rows_out, alone.rows_quarantined, alone.schema, alone.row_hash) == (0, 1, "", rowhash.EMPTY)
    assert read_quarantine(job, [alone])["error"].to_pylist() == ["kills its worker"]
    text = job.place.read(layout.final_name("record", alone, ""))
    assert text is not None and CommitRecord.from_json(json.loads(text)).key == alone.key


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ("NoSetup", ["setup()", "no weights here"]),
        ("Short", ["100 rows", "99", "flat_map"]),
        ("NoDict", ["dict", "int"]),
        ("Objects", ["'y'", "written"]),
        ("Turns", ["'y'", "double", "float"]),
        ("Clash", ["'name'", "carryover"]),
        ("Broken", ["every row", "no_such_column"]),
        ("Missing", ["Missing"]),
    ],
)
def test_broken_contracts_fail_the_job_at_once(tmp_path: Path, stage: str, words: list[str]) -> None:
    make_input(tmp_path, [100, 100])
    job = Job(tmp_path, CODE, pipeline=[{"predict": f"steps:{stage}", "batch_size": 100}], carryover=["name"])

    failure = job.fails()

    assert failure.lease is None and failure.kind is FailureKind.FATAL
    for word in words:
        assert word in failure.error
    assert (failure.cause is Cause.HOPELESS) == (stage == "Broken")
    if stage in ("NoSetup", "Broken"):
        assert "steps.py" in failure.traceback and "Traceback" in failure.traceback


def test_user_code_may_keep_its_batches(tmp_path: Path) -> None:
    make_input(tmp_path, [400])
    job = Job(tmp_path, CODE, pipeline=[{"predict": "steps:Keeps", "batch_size": 100, "batch_format": "arrow"}])
    job.run()
    assert job.table()["own"].to_pylist() == list(range(400))
    assert job.table()["y"].to_pylist() == list(range(100)) * 4


def test_yield_stages_the_finished_prefix_and_releases_the_rest(tmp_path: Path) -> None:
    make_input(tmp_path, [400])
    job = Job(tmp_path, CODE, pipeline=[{"predict": "steps:Stuck", "batch_size": 100}], carryover=["x"])
    with job.host() as host:
        host.wait_for(hostlink.Ready)
        host.send(job.work(0))
        # The first 200 rows come through; the predictor then sleeps for ever.
        progress = next(m for m in iter(lambda: hostlink.decode(host._lines.readline()), None) if getattr(m, "rows", 0) >= 200)
        assert isinstance(progress, hostlink.Progress)
        host.send(hostlink.YieldRest(LeaseId(1, 0)))
        staged = host.wait_for(hostlink.Staged)
        assert (staged.record.start, staged.record.stop, staged.record.rows_out) == (0, 200, 200)
        assert host.wait_for(hostlink.Released).lease == LeaseId(1, 0)
        host.send(hostlink.YieldRest(LeaseId(1, 77)))
        assert host.wait_for(hostlink.Released).lease == LeaseId(1, 77)


def test_a_cut_lease_stops_short_and_a_renamed_one_stages_under_its_new_name(tmp_path: Path) -> None:
    make_input(tmp_path, [3000, 500])
    job = Job(tmp_path, CODE, pipeline=[{"predict": "steps:Slow", "batch_size": 100}], carryover=["x"])
    with job.host() as host:
        host.wait_for(hostlink.Ready)
        host.send(job.work(0))
        host.send(hostlink.Cut(LeaseId(1, 0), Rows(0, 1234)))
        host.send(job.work(1))
        host.send(hostlink.Regrant(LeaseId(1, 1), LeaseId(2, 9), 3))
        found = {message.lease: message.record for message in (host.wait_for(hostlink.Staged), host.wait_for(hostlink.Staged))}
        assert host.stop() == 0
    assert (found[LeaseId(1, 0)].start, found[LeaseId(1, 0)].stop, found[LeaseId(1, 0)].rows_out) == (0, 1234, 1234)
    assert found[LeaseId(2, 9)].staged.startswith("2-9.1.0-500.") and found[LeaseId(2, 9)].attempt == 3
    job.publish(list(found.values()))
    assert job.table()["x"].to_pylist() == [*range(1234), *range(3000, 3500)]


def test_the_commit_interval_cuts_a_lease_into_parts(tmp_path: Path) -> None:
    make_input(tmp_path, [3000])
    job = Job(tmp_path, CODE, pipeline=[{"predict": "steps:Slow", "batch_size": 100}], carryover=["x"], commit_interval=0.3)

    records = job.run()

    assert len(records) > 1
    assert [record.start for record in records] == [0, *(record.stop for record in records[:-1])]
    assert job.table()["x"].to_pylist() == list(range(3000))


def test_lines_are_sized_when_read_and_json_parts_have_record_objects(tmp_path: Path) -> None:
    (tmp_path / "input").mkdir()
    (tmp_path / "input" / "a.jsonl").write_text("".join(json.dumps({"x": i}) + "\n" for i in range(250)))
    job = Job(tmp_path, CODE, source={"type": "jsonl"}, pipeline=[{"predict": "steps:Identity"}], sink={"type": "jsonl"})
    assert job.shards[0].rows is None

    (record,) = job.run()

    assert (record.stop, record.rows_out) == (250, 250)
    assert [staged.kind for staged in record.objects] == ["record", "part"]
    lines = Path(job.output, layout.final_names(record, "jsonl")[-1]).read_text().splitlines()
    assert [json.loads(line)["y"] for line in lines] == list(range(250))


def test_accumulators_travel_in_the_record(tmp_path: Path) -> None:
    make_input(tmp_path, [1000])
    accumulators = {"mean_y": {"type": "mean", "value": "y"}}
    job = Job(tmp_path, CODE, pipeline=[{"predict": "steps:Identity", "batch_size": 100}], accumulators=accumulators)
    (record,) = job.run()
    assert json.loads(record.accumulators)["mean_y"]["rows"] == 1000


def test_nothing_outlives_a_lost_agent(tmp_path: Path) -> None:
    make_input(tmp_path, [4000])
    job = Job(tmp_path, CODE, pipeline=[{"predict": "steps:Slow", "batch_size": 100, "concurrency": 2}])
    with job.host() as host:
        host.wait_for(hostlink.Ready)
        host.send(job.work(0))
        predictors = host.children()
        assert len(predictors) == 2
    wait_until(lambda: not any(map(is_alive, predictors)), "predictors end with their host")
    assert host.process.returncode == 0


def test_nothing_outlives_a_killed_host(tmp_path: Path) -> None:
    make_input(tmp_path, [10])
    job = Job(tmp_path, CODE, pipeline=[{"predict": "steps:Stuck"}])
    with job.host() as host:
        host.wait_for(hostlink.Ready)
        predictors = host.children()
        assert predictors
        host.process.kill()
        wait_until(lambda: not any(map(is_alive, predictors)), "predictors end with their host")
