"""What outlives a master: what it wrote down, and when the job began although the wall clock was set."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from antinfer.core.scaling.values import GiveBack, Measure
from antinfer.errors import DataError
from antinfer.master.controller.account import Account, Beginning
from antinfer.storage import layout
from antinfer.storage.place import open_place

DAY_S = 86_400.0
BEGAN_AT = 1_700_000_000.0


@pytest.mark.parametrize("jump_s", [DAY_S, -DAY_S], ids=["forward", "back"])
def test_a_later_reign_is_not_deceived_by_a_clock_that_was_set(monkeypatch: pytest.MonkeyPatch, jump_s: float) -> None:
    account, beginning = Account(BEGAN_AT, {}), Beginning()
    monkeypatch.setattr(time, "time", lambda: BEGAN_AT + 60)
    assert beginning.at(account, 1_000_000) == 940_000

    monkeypatch.setattr(time, "time", lambda: BEGAN_AT + 90 + jump_s)
    assert account.age_ms() == max(0, round((90 + jump_s) * 1_000)), "the clock was set"
    assert beginning.at(account, 1_030_000) == 940_000


def test_a_master_that_comes_later_reckons_with_the_time_it_was_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: BEGAN_AT + 3_600)
    assert Beginning().at(Account(BEGAN_AT, {}), 5_000) == 5_000 - 3_600_000


def test_a_job_that_begins_in_the_future_begins_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: BEGAN_AT - DAY_S)
    assert Beginning().at(Account(BEGAN_AT, {}), 5_000) == 5_000


def test_what_was_written_down_is_read_by_the_next_reign(tmp_path: Path) -> None:
    place = open_place(str(tmp_path))
    begun = Account.open(place)
    assert Account.open(place) == begun, "a job begins once"
    account = replace(
        begun, used_ms={"protected": 7}, given_back=(GiveBack("a", 3, had=9),), measures={"protected": Measure(0.5, 0.1, 900)}
    )
    account.write(place)
    assert Account.open(place) == account


def test_what_is_damaged_is_said_with_the_way_out(tmp_path: Path) -> None:
    place = open_place(str(tmp_path))
    place.write(layout.WORKERS, b'{"began_at": 1}')
    with pytest.raises(DataError, match="is damaged") as raised:
        Account.open(place)
    assert "Delete it" in raised.value.hint
