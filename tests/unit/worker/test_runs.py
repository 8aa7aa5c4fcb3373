"""Which rows of a lease a retry round takes, and the file that a row is in."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from antinfer.core.ids import LeaseId, ShardId
from antinfer.core.messages import AtWork
from antinfer.core.plan import Piece, Retry, Shard
from antinfer.core.ranges import Rows
from antinfer.worker.host.runs import Run, at_work
from antinfer.worker.hostlink import Work, decode, encode
from antinfer.worker.pipeline.pieces import Group
from antinfer.worker.pipeline.pieces import Piece as PipelinePiece


def run(retry: Retry | None) -> Run:
    work = Work(LeaseId(1, 2), Shard(ShardId(0), (Piece("f", 0, 1, 100),), 100, 1, retry), Rows(0, 100))
    sent = decode(encode(work))
    assert sent == work
    assert isinstance(sent, Work)
    return Run(sent)


def test_without_a_round_every_row_is_taken() -> None:
    assert run(None).retried(0, 100) is None
    assert run(None).round == 0


@pytest.mark.parametrize(("start", "stop", "taken"), [(0, 100, [3, 4, 7, 98, 99]), (4, 98, [4, 7]), (5, 7, []), (99, 200, [99])])
def test_a_round_takes_its_own(start: int, stop: int, taken: list[int]) -> None:
    retried = run(Retry(2, (3, 5, 7, 8, 98, 100)))
    found = retried.retried(start, stop)
    assert found is not None and found.dtype == np.int64
    assert (retried.round, found.tolist()) == (2, taken)


@pytest.mark.parametrize(
    ("pieces", "files"),
    [
        ([("a", 3), ("b", 2)], "aaabb"),
        ([("a", None)], "aaaaa"),
        ([("a", 3), ("b", None)], "aaabb"),
        ([("a", None), ("b", 2)], "....."),
        ([("a", 2), ("b", None), ("c", 2)], "aa..."),
    ],
)
def test_the_file_of_a_row(pieces: list[tuple[str, int | None]], files: str) -> None:
    shard = Shard(ShardId(0), tuple(Piece(path, 0, 0, rows) for path, rows in pieces), None, 1)
    assert "".join(shard.path_of(offset) or "." for offset in range(5)) == files


def test_rows_at_work_are_told_by_lease_from_the_first_to_the_last() -> None:
    one, two = run(None), run(None)
    batch = pa.record_batch({"x": [0, 1]})
    children = Group(PipelinePiece(one, 20, 30, None), 1, np.zeros(2, np.int64))
    pieces = [PipelinePiece(one, 4, 6, batch), PipelinePiece(two, 0, 2, batch), PipelinePiece(children, 0, 2, batch)]
    assert at_work(pieces) == (AtWork(one.lease, Rows(4, 30)), AtWork(two.lease, Rows(0, 2)))
