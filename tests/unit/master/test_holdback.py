"""Answers wait for publication, in order, stream by stream."""

from __future__ import annotations

from antinfer.core.commands import Send
from antinfer.core.events import StreamId
from antinfer.core.ids import StagedName
from antinfer.core.messages import Acceptance, Answer, CommitOutcome, Push, Verdict
from antinfer.master.holdback import Holdback


def answer(stream: int, number: int, *staged: str, acceptance: Acceptance = Acceptance.ACCEPTED) -> Send:
    return Send(StreamId(stream), Answer(number, Verdict.WORK, tuple(CommitOutcome(StagedName(name), acceptance) for name in staged)))


def test_an_answer_that_accepts_waits_until_all_of_it_is_published() -> None:
    holdback = Holdback()
    holdback.expect(["a", "b"])
    waiting = answer(1, 1, "a", "b")
    assert not holdback.offer(waiting)
    assert holdback.published(["a"]) == []
    assert holdback.published(["b"]) == [waiting]
    assert holdback.offer(waiting), "a repeat of a published commit leaves at once"


def test_later_messages_of_the_same_stream_do_not_overtake() -> None:
    holdback = Holdback()
    holdback.expect(["a", "b"])
    first, push, second = answer(1, 1, "a"), Send(StreamId(1), Push(verdict=Verdict.DONE)), answer(1, 2, "b")
    assert not any(holdback.offer(send) for send in (first, push, second))
    assert holdback.published(["a"]) == [first, push]
    assert holdback.published(["b"]) == [second]


def test_other_streams_and_refusals_do_not_wait() -> None:
    holdback = Holdback()
    holdback.expect(["a"])
    assert not holdback.offer(answer(1, 1, "a"))
    assert holdback.offer(answer(2, 1, "b"))
    assert holdback.offer(answer(3, 1, "a", acceptance=Acceptance.REFUSED))
