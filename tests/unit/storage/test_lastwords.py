"""What a master leaves beside the output of a job that it gave up."""

from __future__ import annotations

from pathlib import Path

import pytest

from antinfer.storage import layout
from antinfer.storage.lastwords import LastWords
from antinfer.storage.place import OutputPlace, open_place

WORDS = LastWords("j1", 3, "the input changed: ü\n  hint: undo it", 100, 2, {"user_error": 1})


@pytest.fixture
def place(tmp_path: Path) -> OutputPlace:
    return open_place(str(tmp_path / "out"))


def test_they_are_read_until_another_master_goes_on(place: OutputPlace) -> None:
    assert LastWords.read(place) is None
    place.claim_epoch(3, "first")
    WORDS.write(place)
    assert LastWords.read(place) == WORDS
    place.claim_epoch(4, "second")
    assert LastWords.read(place) is None


@pytest.mark.parametrize("text", ["", "[]", '{"job": "j1"}', '{"job": "j1", "epoch": 3, "reason": "r", "more": 1}'])
def test_those_of_another_version_say_nothing(place: OutputPlace, text: str) -> None:
    place.claim_epoch(3, "first")
    place.write(layout.FAILED, text.encode())
    assert LastWords.read(place) is None
