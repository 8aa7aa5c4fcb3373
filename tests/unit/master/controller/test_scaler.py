"""The beginning of a reign that looks after its workers."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from antinfer.errors import DataError, OutputError
from antinfer.launchers.port import Sight, WorkerOrder
from antinfer.master.backoff import patiently
from antinfer.master.controller.account import Account
from antinfer.master.controller.scaler import Scaler
from antinfer.master.controller.shell import Surroundings
from antinfer.master.controller.sight import JobSight
from antinfer.master.troubles import Troubles
from antinfer.spec.schema import WorkersSpec
from antinfer.storage import layout
from antinfer.storage.posix import PosixPlace

BEGAN_AT = 1_700_000_000.0


class Nowhere:
    """A launcher that sees nothing yet."""

    def open(self, on_change: Callable[[], None]) -> None:
        pass

    def start(self, workers: Sequence[WorkerOrder]) -> None:
        raise AssertionError(f"{workers} are started before anything was seen")

    def stop(self, name: str, *, drain: bool) -> None:
        raise AssertionError(f"{name} is stopped before anything was seen")

    def observe(self) -> Sight | None:
        return None

    def close(self) -> None:
        pass


class AwayPlace(PosixPlace):
    """Is out of reach so many times, then there."""

    away = 0
    reads = 0

    def read(self, name: str) -> bytes | None:
        self.reads += 1
        if self.away:
            self.away -= 1
            raise OutputError("the output is away")
        return super().read(name)


class Reign:
    def __init__(self, place: PosixPlace) -> None:
        self.place = place
        self.has_ruled = False
        self.troubles = Troubles()

    def run(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        def broken(error: BaseException) -> None:
            raise error

        around = Surroundings(look=JobSight, post=lambda event: None, fail=broken, broken=broken, troubles=self.troubles)
        scaler = Scaler(lambda address: Nowhere(), WorkersSpec(), name="j", job="j1", most=1)
        wait = partial(patiently, stopped=threading.Event(), patience_s=60.0, troubles=self.troubles)
        await scaler.during(self._rule(), around, self.place, wait, epoch=1, address="", is_over=lambda: False)

    async def _rule(self) -> None:
        self.has_ruled = True


@pytest.fixture
def place(tmp_path: Path) -> AwayPlace:
    place = AwayPlace(str(tmp_path / "out"))
    Account(BEGAN_AT, {"default": 1}).write(place)
    return place


def test_an_output_that_is_away_for_a_moment_is_waited_for(place: AwayPlace) -> None:
    place.away = 2
    reign = Reign(place)
    reign.run()
    assert place.away == 0 and reign.has_ruled
    assert Account.open(place).began_at == BEGAN_AT, "the job did not begin anew"
    assert not reign.troubles.text


def test_an_account_that_is_damaged_is_not_waited_for(place: AwayPlace) -> None:
    place.write(layout.WORKERS, json.dumps({"began_at": "damaged"})[:-1].encode())
    with pytest.raises(DataError, match="is damaged"):
        Reign(place).run()
    assert place.reads == 1
