"""What must outlive a master about its workers, beside the output: when the job began, what they were paid for, how fast they are."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from antinfer.core.scaling.values import GiveBack, Measure
from antinfer.errors import DataError
from antinfer.storage import layout
from antinfer.storage.place import OutputPlace


@dataclass(frozen=True, slots=True)
class Account:
    """Times of a job."""

    began_at: float
    """Seconds since 1970: the only clock that another machine shares."""
    used_ms: Mapping[str, int]
    """Time that workers of each class were there, in all reigns."""
    given_back: Sequence[GiveBack] = ()
    """Workers that somebody wanted back, and has not let go."""
    measures: Mapping[str, Measure] = field(default_factory=dict)
    """What was measured about the workers of each class."""

    @classmethod
    def open(cls, place: OutputPlace) -> Account:
        """Read it, or begin it; may be called again.

        Raises:
            DataError: It is damaged.
            OutputError: The place cannot be reached.
        """
        data = place.read(layout.WORKERS)
        if data is None:
            account = cls(time.time(), {})
            account.write(place)
            return account
        try:
            told = json.loads(data)
            measures = {name: Measure(**each) for name, each in told["measures"].items()}
            return cls(told["began_at"], told["used_ms"], tuple(GiveBack(**each) for each in told["given_back"]), measures)
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(
                f"{place.uri}/{layout.WORKERS} is damaged: {error}", hint="Delete it: deadline and budget then begin anew."
            ) from error

    def write(self, place: OutputPlace) -> None:
        told = {
            "began_at": self.began_at,
            "used_ms": dict(self.used_ms),
            "given_back": [asdict(each) for each in self.given_back],
            "measures": {name: asdict(measure) for name, measure in self.measures.items()},
        }
        place.write(layout.WORKERS, json.dumps(told).encode())

    def age_ms(self) -> int:
        """Return how long ago the job began, if the wall clock is right now."""
        return max(0, round((time.time() - self.began_at) * 1_000))


class Beginning:
    """When the job began on this process's monotonic clock. The wall clock is asked once: it may be set while the process lives, and a
    reign that began after that would take the deadline for missed, and ask for all workers."""

    def __init__(self) -> None:
        self._at: int | None = None

    def at(self, account: Account, now: int) -> int:
        """Return it in milliseconds; `now` is the time on the same clock."""
        if self._at is None:
            self._at = now - account.age_ms()
        return self._at
