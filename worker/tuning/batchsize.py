"""How many rows a batch shall have: a policy that finds out by doubling, pure.

A larger batch pays until the device is full; from there on it only costs memory and makes everything around it wait longer. So the policy
starts small, doubles while that pays (`KNEE`) and memory allows, and stays. It takes half when a batch does not fit, and tries the larger
one again after many good batches, more seldom each time that it fails. Once that does well, the search goes on from there. One failure may
be an accident: a few large rows that came together, or a neighbour on the device. So half of what did not fit is worth remembering only
when the whole has failed again; and a row that fits into no memory, not even alone, says nothing about the size at all.
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
"""After running out of memory, so many batches must do well before more rows are tried again; twice as many after each failure. So many
of a size that had run out clear it of that."""
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


@dataclass(slots=True)
class _Cut:
    """A size that ran out of memory and is not cleared of that."""

    rows: int
    failures: int = 0
    good: int = 0
    """Batches of it that had done well when it failed last, so far as they were counted."""

    @property
    def patience(self) -> int:
        """Batches that must do well before it is tried again."""
        return min(_GOOD_BATCHES << (self.failures - 1), _LONGEST_PATIENCE)


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
        self._trials: dict[tuple[int, bool], _Trial] = {}
        self._largest = 0
        """Rows of the largest batch that has fitted."""
        self._cuts: list[_Cut] = []
        """Largest first: the last one is tried again next, or on trial now; the search waits until there is none."""
        self._good = 0
        """While there are cuts: batches of the present size that did well."""

    def recall(self, rows: int, device: str) -> Decision | None:
        """Take over what an earlier run has found; None when it is too late for that or no use."""
        if not self._probing or self._trials or not 1 <= rows <= self._most:
            return None
        self._settle(rows)
        return Decision(rows, f"{rows} rows, as an earlier run found best on {device}")

    def observe(self, sample: Sample) -> Decision | None:
        """Learn from a batch; return what to change, if anything."""
        self._largest = max(self._largest, sample.rows)
        if sample.rows != self.rows:
            return None
        if self._cuts:
            return self._recover()
        if not self._probing or sample.seconds <= 0:
            return None
        trial = self._trials.setdefault((self.rows, sample.fused), _Trial())
        if sample.free_bytes is not None:
            trial.free_bytes = sample.free_bytes
        return self._judge(trial, sample) if trial.count(sample, self._slots) else None

    def ran_out(self, rows: int) -> Decision | None:
        """Learn that a batch of `rows` rows did not fit into memory; None when later batches are smaller already."""
        if rows > self.rows or self.rows == 1:
            # It was cut before the last decision, or cannot be cut.
            return None
        if not self._cuts or self._cuts[-1].rows != self.rows:
            self._cuts.append(_Cut(self.rows))
        cut = self._cuts[-1]
        cut.failures += 1
        cut.good, self._good = self._good, 0
        # A small batch, of rows left over at an end, says little against a size that has done well. But where bytes cut batches shorter
        # than rows do, half of the size would change nothing.
        self.rows = max(1, min(self.rows // 2, max(rows // 2, self._largest)))
        return Decision(self.rows, f"{rows} rows ran out of memory: {self.rows} rows from now on")

    def acquit(self, rows: int) -> Decision | None:
        """Learn that one of those that did not fit when the size was `rows` does not fit alone either: the size was not at fault."""
        at = next((at for at, cut in enumerate(self._cuts) if cut.rows == rows), None)
        if at is None or rows <= self.rows:
            return None
        cut = self._cuts[at]
        cut.failures -= 1
        del self._cuts[at + bool(cut.failures) :]
        self.rows, self._good = rows, cut.good
        return Decision(rows, f"a row does not fit into memory alone: {rows} rows again")

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

    def _recover(self) -> Decision | None:
        self._good += 1
        if self._good == _GOOD_BATCHES and self._cuts[-1].rows == self.rows:
            self._cuts.pop()
        if not self._cuts:
            self._good = 0
            return None
        cut = self._cuts[-1]
        if cut.rows == self.rows:
            return None
        if self._good >= cut.patience:
            good, old = self._good, self.rows
            self.rows, self._good = min(2 * old, cut.rows), 0
            return Decision(self.rows, f"{good} batches of {old} rows have fitted into memory: trying {self.rows} again")
        if self._probing and self._good == _GOOD_BATCHES and cut.rows <= 2 * self.rows:
            # The patience is longer than that, so it has failed again.
            reason = f"{self.rows} rows do well, {cut.rows} have run out of memory {cut.failures} times: {self.rows} rows is the knee"
            return Decision(self.rows, reason, settled=True)
        return None

    def _settled(self, rows: int, reason: str) -> Decision:
        self._settle(rows)
        return Decision(rows, reason, settled=True)

    def _settle(self, rows: int) -> None:
        self.rows = rows
        self._probing = False
