"""How far ahead a host is given work."""

from __future__ import annotations

from antinfer.worker.host.ahead import USUAL_SLOTS, Ahead


def test_long_leases_need_no_more_than_usual() -> None:
    ahead = Ahead()
    assert [ahead.note_begun(2, 60.0 * n) for n in range(10)] == [USUAL_SLOTS] * 10


def test_two_seconds_of_work_wait_to_be_read_whatever_the_leases_last() -> None:
    ahead = Ahead()
    slots = [ahead.note_begun(3, n * 0.5) for n in range(20)]
    assert slots[-1] == 3 + 5, "five of half a second were begun in the last two, both ends included"
    assert max(ahead.note_begun(3, 10 + n * 0.001) for n in range(3_000)) == 3 + 32, "there is a limit"


def test_what_is_in_the_pipeline_does_not_count_as_waiting() -> None:
    ahead = Ahead()
    assert ahead.note_begun(100, 0.0) == 100 + USUAL_SLOTS // 2
