"""How many rows a batch shall have: a policy that finds out by doubling, pure.

A larger batch pays until the device is full; from there on it only costs memory and makes everything around it wait longer. So the policy
starts small, doubles while that pays (`KNEE`) and memory allows, and stays. It takes half when a batch does not fit, and tries the larger
one again after many good batches, more seldom each time that it fails.
"""

from __future__ import annotations

from dataclasses import dataclass, field

FIRST_ROWS = 8
"""Where the search begins when nothing is remembered."""
KNEE = 0.08
"""Doubling must raise the rows per second by this share to be worth another one."""
_WORTH = 0.02
"""The last doubling is kept when it brought at least this."""
SLOTS = 3
"""Batches under way in one process: one is computed, one is on its way to the device, and one is being written. They are timed together:
they overlap, one that is collected late makes the next one look short, and only their sum is true."""
_FRONT_SLOTS = 2
"""So many more where the stage in front works in that process, too, so that neither waits for the other one's next batch."""
_WINDOWS_IN_DOUBT = 3
"""Windows that are timed before a size is found not to pay: a single one says little."""
_MEMORY_SHARE = 0.85
"""Of the memory that is free, so much may be taken by the next doubling."""
_GOOD_BATCHES = 64
"""After running out of memory, so many batches must do well before more rows are tried again; twice as many after each failure."""
_LONGEST_PATIENCE = 1 << 14


def slots_of(*, has_front: bool) -> int:
    """Return how many batches may be under way in one process, with or without a stage in front that works there."""
    return SLOTS + _FRONT_SLOTS * has_front


@dataclass(frozen=True, slots=True)
class Sample:
    """One batch that was computed."""

    rows: int
    size_bytes: int
    """Size of its input."""
    seconds: float
    """Time it took, without time that other batches of the same process were told."""
    executor: int = 0
    """Which process it was."""
    free_bytes: int | None = None
    """Memory that was left on the device afterwards; None: not known."""
    fused: bool = False
    """It did the work of the stage before as well; compared with its like alone."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Batches have another size from now on, or the search has come to an end."""

    rows: int
    reason: str
    """Why, in one line."""
    settled: bool = False
    """This is the best size, worth remembering."""


@dataclass(slots=True)
class _Trial:
    """What is known of one size."""

    begun: dict[int, list[float]] = field(default_factory=dict)
    """Process -> seconds of the batches of its window under way."""
    best: float = 0.0
    """Rows per second of the fastest window: what disturbs a batch can only make it slower."""
    windows: int = 0
    free_bytes: int | None = None

    def count(self, sample: Sample, slots: int) -> bool:
        """Count a batch; true when it ends a window of `slots`."""
        window = self.begun.get(sample.executor)
        if window is None:
            # The first one of a process warms it up, compiles, or finds its memory.
            self.begun[sample.executor] = []
            return False
        window.append(sample.seconds)
        if len(window) < slots:
            return False
        self.best = max(self.best, sample.rows * slots / sum(window))
        self.windows += 1
        window.clear()
        return True


class BatchSizePolicy:
    """Decides the rows of a batch of one stage. Tell it of every batch (`observe`) and of those that did not fit (`ran_out`)."""

    def __init__(self, rows: int, most: int, *, max_bytes: int | None = None, probes: bool, slots: int = SLOTS) -> None:
        """Begin with `rows`.

        Args:
            rows: Rows of the first batches.
            most: Never more rows than this.
            max_bytes: Never more bytes than this in one batch, so far as rows are of one size; None: no limit.
            probes: Search for the best size; otherwise `rows` is what the user chose, and only memory changes it.
            slots: Batches under way in one process.
        """
        self.rows = rows
        self._slots = slots
        self._most = most
        self._max_bytes = max_bytes
        self._probing = probes
        self._target = most if probes else rows
        """What to grow to again after running out of memory."""
        self._trials: dict[tuple[int, bool], _Trial] = {}
        self._patience = _GOOD_BATCHES
        self._good = 0
        self._short = False

    def recall(self, rows: int, device: str) -> Decision | None:
        """Take over what an earlier run has found; None when it is too late for that or no use."""
        if not self._probing or self._trials or not 1 <= rows <= self._most:
            return None
        self._settle(rows)
        return Decision(rows, f"{rows} rows, as an earlier run found best on {device}")

    def observe(self, sample: Sample) -> Decision | None:
        """Learn from a batch; return what to change, if anything."""
        if self._short:
            return self._recover(sample)
        if not self._probing or sample.rows != self.rows or sample.seconds <= 0:
            return None
        trial = self._trials.setdefault((self.rows, sample.fused), _Trial())
        if sample.free_bytes is not None:
            trial.free_bytes = sample.free_bytes
        return self._judge(trial, sample) if trial.count(sample, self._slots) else None

    def ran_out(self, rows: int) -> Decision | None:
        """Learn that a batch of `rows` rows did not fit into memory; None when later batches are smaller already."""
        if rows > self.rows:
            # It was cut before the last decision.
            return None
        self._good = 0
        if self._short:
            self._patience = min(2 * self._patience, _LONGEST_PATIENCE)
        was_probing, self._probing, self._short = self._probing, False, True
        if self.rows == 1:
            return None
        self.rows = max(1, rows // 2)
        if was_probing:
            # What did well before is the best there is; more was never seen to fit.
            self._target = self.rows
        return Decision(self.rows, f"{rows} rows ran out of memory: {self.rows} rows from now on", settled=was_probing)

    # -- inside ----------------------------------------------------------------------------------------------------------------------
    def _judge(self, trial: _Trial, sample: Sample) -> Decision | None:
        before = self._timed(self.rows // 2, sample.fused)
        if before is None and self._timed(self.rows // 2, not sample.fused) is not None and trial.windows < _WINDOWS_IN_DOUBT:
            # Those of the other kind have something to be compared with; they may come yet.
            return None
        gain = None if before is None else trial.best / before.best - 1
        if gain is not None and gain < KNEE:
            if trial.windows < _WINDOWS_IN_DOUBT:
                return None
            rows = self.rows if gain >= _WORTH else self.rows // 2
            return self._settled(rows, f"{self.rows} rows are {gain:+.0%} faster than {self.rows // 2}: {rows} rows is the knee")
        brought = "" if gain is None else f" ({gain:+.0%} over {self.rows // 2})"
        stop = self._barrier(sample, trial, before)
        if stop:
            return self._settled(self.rows, f"{self.rows} rows, {trial.best:.0f} rows/s{brought}: {stop}")
        old, self.rows = self.rows, 2 * self.rows
        return Decision(self.rows, f"{old} rows make {trial.best:.0f} rows/s{brought}: trying {self.rows}")

    def _timed(self, rows: int, fused: bool) -> _Trial | None:
        trial = self._trials.get((rows, fused))
        return trial if trial is not None and trial.windows else None

    def _barrier(self, sample: Sample, trial: _Trial, before: _Trial | None) -> str:
        """Say what stands in the way of twice as many rows; empty when nothing does."""
        if 2 * self.rows > self._most:
            return f"more than {self._most} are not allowed"
        if self._max_bytes is not None and 2 * sample.size_bytes > self._max_bytes:
            return f"twice as many would be more than {self._max_bytes >> 20} MiB"
        if before is None or before.free_bytes is None or trial.free_bytes is None:
            return ""
        # The last doubling took so much, the next one takes twice that.
        wanted = 2 * (before.free_bytes - trial.free_bytes)
        if wanted > _MEMORY_SHARE * trial.free_bytes:
            return f"twice as many need about {wanted >> 20} MiB more of the device's memory, and {trial.free_bytes >> 20} MiB are free"
        return ""

    def _recover(self, sample: Sample) -> Decision | None:
        if sample.rows != self.rows:
            return None
        self._good += 1
        if self._good < self._patience:
            return None
        self._good = 0
        if self.rows >= self._target:
            return None
        good, old = self._patience, self.rows
        self.rows = min(2 * self.rows, self._target)
        return Decision(self.rows, f"{good} batches of {old} rows have fitted into memory: trying {self.rows} again")

    def _settled(self, rows: int, reason: str) -> Decision:
        self._settle(rows)
        return Decision(rows, reason, settled=True)

    def _settle(self, rows: int) -> None:
        self.rows = self._target = rows
        self._probing = False
