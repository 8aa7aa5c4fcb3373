"""Patience: with trouble of the infrastructure, not with anything else, and not without end."""

from __future__ import annotations

import threading

import pytest

from antinfer.errors import FencedError, InternalError, Interrupted, OutputError
from antinfer.master.backoff import START_S, patiently


class Troubled:
    """Fails so many times, then works."""

    def __init__(self, times: int, error: Exception) -> None:
        self.left, self.error, self.calls = times, error, 0

    def __call__(self) -> str:
        self.calls += 1
        if self.left:
            self.left -= 1
            raise self.error
        return "done"


def test_trouble_of_the_infrastructure_passes() -> None:
    work = Troubled(2, OutputError("disk away"))
    assert patiently("writing", work, threading.Event(), patience_s=10) == "done"
    assert work.calls == 3


@pytest.mark.parametrize("error", [FencedError("another rules"), InternalError("bug")])
def test_what_does_not_pass_is_raised_at_once(error: Exception) -> None:
    work = Troubled(1, error)
    with pytest.raises(type(error)):
        patiently("writing", work, threading.Event(), patience_s=10)
    assert work.calls == 1


def test_patience_ends() -> None:
    with pytest.raises(OutputError, match="disk away"):
        patiently("writing", Troubled(10**6, OutputError("disk away")), threading.Event(), patience_s=0.05)


def test_nobody_waits_for_work_that_is_not_wanted_any_more() -> None:
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(Interrupted):
        patiently("writing", Troubled(10**6, OutputError("disk away")), stopped, patience_s=600)


@pytest.mark.parametrize(("patience_s", "calls"), [(START_S, 1), (600.0, 2)])
def test_a_master_that_begins_does_not_wait_for_what_does_not_pass_by_itself(patience_s: float, calls: int) -> None:
    work = Troubled(1, OutputError("read-only", lasting=True))
    if calls == 1:
        with pytest.raises(OutputError, match="read-only"):
            patiently("claiming", work, threading.Event(), patience_s)
    else:
        patiently("claiming", work, threading.Event(), patience_s)
    assert work.calls == calls
