"""What a master waits for is said while it waits, and not longer."""

from __future__ import annotations

import threading

import pytest

from antinfer.errors import OutputError
from antinfer.master.backoff import patiently
from antinfer.master.troubles import Troubles


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_oldest_trouble_is_told_and_for_how_long() -> None:
    clock = Clock()
    troubles = Troubles(clock)
    assert troubles.text == ""
    troubles.note("disk", "no space left")
    clock.now += 20
    troubles.note("store", "it is away")
    troubles.note("another", "it is away")
    troubles.note("disk", "no space left on /out")
    assert troubles.text == "waiting for 20 s: no space left on /out; and 1 more"
    troubles.clear("disk")
    assert troubles.text == "waiting for 0 s: it is away"
    troubles.clear("store")
    troubles.clear("another")
    troubles.clear("never there")
    assert troubles.text == ""


def test_what_is_foreseen_is_told_after_what_is_waited_for() -> None:
    troubles = Troubles(Clock())
    troubles.foresee("deadline", "it ends late")
    assert troubles.text == "it ends late"
    troubles.note("disk", "no space left")
    troubles.note("store", "it is away")
    troubles.foresee("deadline", "it ends later")
    assert troubles.text == "waiting for 0 s: it is away; and 1 more; it ends later"
    for key in ("disk", "store"):
        troubles.clear(key)
    troubles.foresee("deadline", "")
    assert troubles.text == ""


def test_it_is_told_while_it_is_tried_again() -> None:
    troubles, told = Troubles(), []

    def work() -> str:
        told.append(troubles.text)
        if len(told) < 3:
            raise OutputError("output /out: no space left on the device", hint="Free some space.")
        return "done"

    assert patiently("writing", work, threading.Event(), 10, troubles) == "done"
    assert told[0] == ""
    assert all("no space left on the device" in text and "Free some space." in text for text in told[1:])
    assert troubles.text == ""


def test_whoever_gives_up_waits_no_more() -> None:
    troubles = Troubles()

    def work() -> None:
        raise OutputError("away")

    with pytest.raises(OutputError):
        patiently("writing", work, threading.Event(), 0.05, troubles)
    assert troubles.text == ""
