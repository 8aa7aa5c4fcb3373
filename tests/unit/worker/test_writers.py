"""Writers on a real place: one that turns its back on them, and memory that is short."""

from __future__ import annotations

import errno
import threading
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import pyarrow as pa
import pytest

from antinfer.core.causes import Cause
from antinfer.core.ids import LeaseId, ShardId
from antinfer.core.messages import FailureKind
from antinfer.core.plan import Shard
from antinfer.core.ranges import Rows
from antinfer.storage import layout
from antinfer.worker.host.credits import Credits
from antinfer.worker.host.leases import Leases
from antinfer.worker.host.parts import OpenPart
from antinfer.worker.host.runs import Chunk
from antinfer.worker.host.writers import Writer
from antinfer.worker.hostlink import Failed, Staged, Work
from antinfer.worker.pipeline.pieces import Piece
from tests.unit.worker.test_parts import plan, spooled


class Scene:
    """A writer in a thread of its own, on a real place."""

    def __init__(self, folder: Path, credits: Credits) -> None:
        self.said: list[Any] = []
        self.heard = threading.Semaphore(0)
        self.errors: list[BaseException] = []
        self.credits = credits
        self.leases = Leases(credits, self.hear, 3600.0)
        self.place = plan(folder)
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def hear(self, message: Any) -> None:
        self.said.append(message)
        self.heard.release()

    def run(self) -> None:
        try:
            Writer(self.place, self.leases, self.hear).run()
        except BaseException as error:  # noqa: BLE001 - shown by the test
            self.errors.append(error)
            self.heard.release()

    def compute(self, n: int, rows: int = 10, *, says: bool = True) -> Any:
        """Have the writer finish ten rows of a new lease of so many; return what it says, if it does."""
        self.leases.start(Work(LeaseId(1, n), Shard(ShardId(n), (), rows, 0), Rows(0, rows)))
        run = self.leases.next_to_read()
        assert (
            run is not None
            and self.credits.try_take(10)
            and self.leases.add_chunk(run, Chunk(0, 10, 10, pa.record_batch({"x": np.arange(10)})))
        )
        self.leases.collect(Piece(run, 0, 10, pa.record_batch({"y": np.arange(10)})))
        assert self.heard.acquire(timeout=10)
        assert not self.errors, self.errors
        return self.said[-1] if says else None

    def stop(self) -> None:
        self.leases.stop()
        self.thread.join(10)
        assert not self.thread.is_alive()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EIO, errno.ESTALE])
def test_a_part_that_can_neither_be_staged_nor_removed_ends_its_lease_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    scene = Scene(tmp_path, Credits(1000))
    assert isinstance(scene.compute(1), Staged)
    staging = tmp_path / layout.folder(layout.STAGING)
    staging.rename(tmp_path / "away")
    staging.write_text("not a folder")

    def refuse(path: Path, *_: object, **__: object) -> None:
        raise OSError(number, "refused", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        failed = scene.compute(2)
    assert isinstance(failed, Failed) and failed.lease == LeaseId(1, 2)
    assert failed.kind is FailureKind.STORAGE and failed.cause is Cause.OUTPUT_REFUSED
    assert spooled(tmp_path), "it could not be removed"
    staging.unlink()
    (tmp_path / "away").rename(staging)
    assert isinstance(scene.compute(3), Staged)
    scene.stop()
    scene.place.place.close()
    assert not spooled(tmp_path)


def test_rows_that_wait_for_a_row_group_are_committed_when_they_take_too_much_memory(tmp_path: Path) -> None:
    """Long before the commit interval: ten rows are some hundred bytes, and half of the credit is less."""
    credits = Credits(100)
    scene = Scene(tmp_path, credits)
    staged = scene.compute(1, rows=40)
    assert isinstance(staged, Staged) and (staged.record.start, staged.record.stop) == (0, 10)
    scene.stop()
    assert credits.used_bytes == 0


def test_a_part_whose_lease_is_taken_away_while_it_is_written_is_thrown_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(tmp_path, Credits(1000))
    seen: list[list[str]] = []

    def add_and_cut(part: OpenPart, *given: Any) -> None:
        add(part, *given)
        seen.append(spooled(tmp_path))
        scene.leases.cut(LeaseId(1, 1), Rows(0, 0))
        scene.heard.release()

    add = OpenPart.add
    with monkeypatch.context() as patch:
        patch.setattr(OpenPart, "add", add_and_cut)
        scene.compute(1, rows=40, says=False)
    assert isinstance(scene.compute(2), Staged), "the writer goes on"
    assert seen == [[ANY]], "there was a part"
    scene.stop()
    assert not spooled(tmp_path) and scene.credits.used_bytes == 0
