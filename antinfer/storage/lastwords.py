"""Why a job was given up, left beside its output for whoever asks when its master is gone. Nothing is decided from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from antinfer.storage import layout
from antinfer.storage.place import OutputPlace


@dataclass(frozen=True, slots=True)
class LastWords:
    """What a master said when it gave the job up."""

    job: str
    epoch: int
    """Of its reign; as soon as a later one begins, these words are out of date."""
    reason: str
    """With the hint, as people read it."""
    rows_committed: int = 0
    rows_quarantined: int = 0
    causes: Mapping[str, int] = field(default_factory=dict)
    """How often each cause had interrupted the job, by name."""

    def write(self, place: OutputPlace) -> None:
        place.write(layout.FAILED, json.dumps(asdict(self), indent=1, ensure_ascii=False).encode())

    @classmethod
    def read(cls, place: OutputPlace) -> LastWords | None:
        """Return what the last master said; None when it said nothing, or another has gone on since.

        Raises `OutputError` when the place cannot be read.
        """
        data = place.read(layout.FAILED)
        if data is None:
            return None
        try:
            words = cls(**json.loads(data))
        except (ValueError, TypeError):
            return None  # of another version
        claimed = place.highest_epoch()
        return words if claimed is not None and claimed.epoch == words.epoch else None
