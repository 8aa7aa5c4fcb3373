"""What is known of stages and machine when something is tuned, within which limits, and what was decided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mode = Literal["threads", "processes"]

RAM_SHARE = 0.85
"""Of the machine's memory, so much may be taken with one more copy."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the tuner may use, and how patient it is."""

    settle_seconds: float = 1.0
    """After a change, so much is not measured."""
    window_seconds: float = 2.0
    """Shortest measurement."""
    window_batches: int = 8
    """Batches of the slowest stage that a measurement has to see, unless it takes `longest_window`."""
    longest_window: float = 20.0
    rest_seconds: float = 300.0
    """After a change was taken back, so long it is not tried again; twice as long each time."""
    prove_after: float = 60.0
    """Copies that a stage was started with are put to the test when the pipeline has run for so long."""
    cpu_share: float = 0.92
    """More copies that compute on the CPU are no use when so much of the cores is taken."""
    ram_share: float = RAM_SHARE
    """Never start a copy that would take the machine's memory beyond this share."""
    ram_alarm: float = 0.95
    """Above it copies are stopped."""
    gpu_share: float = 0.9
    """Likewise for the memory of a GPU."""


@dataclass(frozen=True, slots=True)
class StageSignal:
    """What was measured at one stage since the last step."""

    name: str
    mode: Mode
    degree: int
    """Copies that are wanted."""
    ready: int
    """Copies that are there and set up; fewer while some load, more while some finish their last batch."""
    fewest: int
    most: int
    """Bounds of the degree: the user's, or what makes sense."""
    rows: int = 0
    """Rows taken in."""
    batches: int = 0
    busy_seconds: float = 0.0
    starved_seconds: float = 0.0
    blocked_seconds: float = 0.0
    """All three summed over the copies."""
    cpu_seconds: float = 0.0
    """Computed by the copies, all together; 0: not known."""
    queued_batches: float = 0.0
    """Batches that wait in front of it now."""
    batch_rows: int = 0
    """Rows of a full batch."""
    on_gpu: bool = False
    has_place: bool = True
    """There is room for one more copy on the devices it needs."""
    ram_bytes: int = 0
    """Memory of one copy; 0: not known."""
    gpu_bytes: int = 0
    """GPU memory of one copy; 0: not known."""
    is_last: bool = False
    """Its rows are what the pipeline is measured by."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What the machine has and what of it is taken, by us or others."""

    cpus: float
    cpu_used: float = 0.0
    """Cores at work."""
    ram_total: int = 0
    """Bytes; 0: not known."""
    ram_used: int = 0
    gpu_total: int = 0
    """Bytes of the fullest GPU; 0: not known."""
    gpu_used: int = 0
    killed: int = 0
    """Processes of ours that the system has killed so far for want of memory."""

    def room_for(self, size_bytes: int, ram_share: float = RAM_SHARE) -> int | None:
        """Return how many copies of so many bytes may be added before more than `ram_share` of the memory is taken; None: not known."""
        if not self.ram_total:
            return None
        return max(0, int((ram_share * self.ram_total - self.ram_used) // max(1, size_bytes)))


@dataclass(frozen=True, slots=True)
class Decision:
    """Have `degree` copies of a stage from now on."""

    stage: str
    before: int
    degree: int
    """As before where a change that was on trial stays."""
    reason: str
    """Why, in one line."""
