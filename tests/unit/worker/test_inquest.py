"""What follows from deaths: which batch is run again and how, which row is given up, and when the processes are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from antinfer.errors import MachineError, UserCodeError
from antinfer.worker.deaths import Death, DeathKind
from antinfer.worker.host.flow import Flow
from antinfer.worker.pipeline.assembler import Assembled, BatchLimits
from antinfer.worker.pipeline.graph import Call
from antinfer.worker.pipeline.pieces import Piece, Root
from antinfer.worker.pipeline.stagecalls import StageCall
from antinfer.worker.predictors.care import Care
from antinfer.worker.predictors.inquest import Inquest
from antinfer.worker.predictors.sizing import SizeMemory, Sizing

CRASH = Death(DeathKind.SEGFAULT, "was killed by SIGSEGV", "in steps.py")
KILL = Death(DeathKind.KILLED, "was killed by SIGKILL")
HANG = Death(DeathKind.HANG, "gave no sign of life for 5 s")
STAGE = StageCall("classify", "predict", "steps:Model", "/jobs/one", {})


class Bench:
    """An inquest, and one batch in a flow."""

    def __init__(self, folder: Path, rows: int) -> None:
        self.care = Care()
        self.memory = SizeMemory(folder)
        self.flow = Flow([Call(STAGE, BatchLimits(rows), 1, in_processes=True)], lambda piece: None)
        self.root = Root(0)
        self.flow.put(Piece(self.root, 0, rows, pa.record_batch({"x": np.arange(rows)})))
        call = self.flow.take(0)
        assert call is not None
        self.call = call
        self.inquest = self.another()

    def another(self) -> Inquest:
        """Return one for another process of the stage."""
        return Inquest(0, STAGE, self.flow, Sizing(0, STAGE, self.flow, memory=self.memory), self.care)

    def dies(self, call: Assembled, death: Death = CRASH, *, at_once: bool = True) -> list[Assembled]:
        return self.inquest.blame(call, death, 0, at_once=at_once)


def test_a_batch_is_run_as_it_is_then_in_parts_and_a_row_is_given_up(tmp_path: Path) -> None:
    bench = Bench(tmp_path, 64)
    assert bench.dies(bench.call) == [bench.call]
    parts = bench.dies(bench.call)
    assert [part.rows for part in parts] == [4] * 16
    rows = bench.dies(parts[3])
    assert [row.rows for row in rows] == [1] * 4
    assert bench.dies(rows[2]) == []
    ((row, bad),) = bench.root.bad.items()
    assert row == 14 and bad.error == "Segfault: the process of predict 'classify' (steps:Model) was killed by SIGSEGV, with this row alone"
    assert bad.traceback == "in steps.py"


@pytest.mark.parametrize("death", [CRASH, HANG], ids=["crash", "hang"])
def test_a_row_is_only_given_up_for_the_death_of_a_process_that_no_other_row_can_have_broken(tmp_path: Path, death: Death) -> None:
    bench = Bench(tmp_path, 1)
    for _ in range(5):
        assert bench.dies(bench.call, death, at_once=False) == [bench.call]
    assert not bench.root.bad
    assert bench.dies(bench.call, death) == [] and list(bench.root.bad) == [0]


def test_one_kill_from_outside_gives_no_row_up(tmp_path: Path) -> None:
    bench = Bench(tmp_path, 1)
    assert bench.dies(bench.call) == [bench.call]
    assert bench.dies(bench.call, KILL, at_once=False) == [bench.call]
    assert bench.dies(bench.call, KILL) == [bench.call] and not bench.root.bad
    assert bench.dies(bench.call, KILL) == [] and list(bench.root.bad) == [0]


def test_processes_are_given_up_when_they_die_for_nothing_and_not_while_rows_are_found(tmp_path: Path) -> None:
    bench = Bench(tmp_path, 5)
    bench.dies(bench.call)
    ward = bench.another()
    for row in bench.dies(bench.call):
        for _ in range(11):
            bench.inquest.pause(CRASH, in_setup=False)
        # Another process finds a row that those deaths may have been about.
        assert ward.blame(row, CRASH, 0, at_once=True) == []
    assert len(bench.root.bad) == 5
    for _ in range(11):
        bench.inquest.pause(CRASH, in_setup=False)
    with pytest.raises(UserCodeError, match="it has died 12 times without computing anything in between"):
        bench.inquest.pause(CRASH, in_setup=False)


def test_what_may_be_the_fault_of_the_machine_is_told_as_that(tmp_path: Path) -> None:
    bench = Bench(tmp_path, 1)
    for _ in range(4):
        bench.inquest.pause(KILL, in_setup=True)
    with pytest.raises(MachineError, match="while it was being set up, 5 times in a row"):
        bench.inquest.pause(KILL, in_setup=True)
