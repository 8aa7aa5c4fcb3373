"""The table of stages in the report: all workers together."""

from __future__ import annotations

from dataclasses import replace

from antinfer.master.stagetable import stage_table
from antinfer.rpc.values import KEPT_DECISIONS, StageStats, Stats

ONE = StageStats(
    "model",
    mode="processes",
    degree=2,
    batch_rows=64,
    rows_in=100,
    rows_out=90,
    batches=4,
    busy_seconds=6.0,
    starved_seconds=1.0,
    blocked_seconds=1.0,
    active_seconds=4.0,
    load_seconds=3.0,
    decisions=("model: 1 -> 2",),
)


def test_sums_are_over_all_workers_and_shares_are_of_the_sums() -> None:
    other = replace(ONE, degree=1, rows_in=300, busy_seconds=0.0, starved_seconds=8.0, active_seconds=4.0, load_seconds=9.0)
    first, second = stage_table([Stats(stages=(ONE, StageStats("tail"))), Stats(), Stats(stages=(other,))])
    assert (first["name"], second["name"]) == ("model", "tail")
    assert (first["rows_in"], first["rows_out"], first["batches"], first["degree"]) == (400, 180, 8, 3)
    assert (first["busy"], first["starved"], first["blocked"]) == (0.3529, 0.5294, 0.1176)
    assert first["busy_seconds"] == 6.0 and first["rows_per_second"] == 50.0 and first["load_seconds"] == 9.0
    assert first["workers_as"] == "processes" and first["batch_rows"] == 64
    assert first["decisions"] == ["model: 1 -> 2"] * 2
    assert second["rows_per_second"] is None and second["busy"] == 0.0


def test_what_an_earlier_process_did_is_added() -> None:
    later = replace(ONE, degree=1, rows_in=7, load_seconds=1.0, decisions=("again",)).after(ONE)
    assert (later.rows_in, later.busy_seconds, later.degree, later.load_seconds) == (107, 12.0, 1, 3.0)
    assert later.decisions == ("model: 1 -> 2", "again")
    assert len(replace(ONE, decisions=("x",) * 30).after(ONE).decisions) == KEPT_DECISIONS
