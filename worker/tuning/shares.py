"""Which share of the rows of a hybrid stage goes raw to the predictor behind it, pure.

Cores and predictors work at once: the cores make rows ready, a predictor takes these or does raw ones from the start, which takes it
longer. With a raw share s they make, in rows a second, at most

    min(cores / (1 - s), 1 / ((1 - s) / ready + s / raw))

The highest rate is where both are as large: less, and rows that are ready wait for the predictors; more, and the cores cannot keep up.
`Rates` finds it, `SharePolicy` from what is measured while the pipeline runs, and `Turns` keeps to it batch by batch.
"""

from __future__ import annotations

from dataclasses import dataclass

LEAST_CHANGE = 0.05
"""A new aim differs by so much from the one before."""
WINDOW_SECONDS = 2.0
"""So far are looks at the figures apart at least."""
WINDOW_BATCHES = 8
"""Batches of a kind that a measurement of it has to see."""
CALM_SECONDS = 300.0
"""After so long without a change, an aim that was taken back is no reason for doubt any more."""
_MOST_OWED = 2
"""Batches by which a predictor may be behind its aim: rows that were not there when it was their turn are not made up for in one go."""
_MARGIN = 0.05
"""Where no ready batch waits, raw ones may exceed the aim by this share: what more of them cost is seen only when they are taken."""
_ENOUGH = 3
"""With so many batches under way a predictor has no use for another one yet."""
_MOST_DOUBT = 0.2
"""A new aim never has to differ by more than this."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Rows a second, of all copies together that are there."""

    cores: float
    """As the copies on the cores make them ready when nothing holds them up."""
    ready: float
    """As the predictors do them when they come ready."""
    raw: float
    """As the predictors do them when they come raw."""

    def together(self, share: float) -> float:
        """Return the rows a second that cores and predictors make when `share` of the rows goes raw."""
        predictors = 1 / ((1 - share) / self.ready + share / self.raw)
        return predictors if share == 1 else min(predictors, self.cores / (1 - share))

    def best_share(self, most: float = 1.0) -> float:
        """Return the raw share, at most `most`, with the highest rate; of equal ones the smallest.

        A raw row takes no less of a predictor than a ready one. Where the figures say so, some of its time was counted for the other kind,
        and the share is still that with which neither the cores nor the predictors wait.
        """
        if not self.cores:
            return most
        # What the predictors have left of the time in which the cores make a row, and raw ones take that.
        left = max(0.0, 1 / self.cores - 1 / self.ready)
        return min(most, left / (left + 1 / self.raw))


@dataclass(frozen=True, slots=True)
class Work:
    """What was done of one kind since the start; all of it only grows."""

    rows: int = 0
    batches: int = 0
    seconds: float = 0.0
    """Spent on it, summed over the copies."""
    copies: int = 1
    """That are there for it now."""


@dataclass(frozen=True, slots=True)
class Aim:
    """Have `share` of the rows go raw from now on."""

    share: float
    reason: str
    """Why, in one line."""


class _Meter:
    """The rate of one kind of work."""

    def __init__(self) -> None:
        self._base: Work | None = None
        self._is_warm = False
        self._rate: float | None = None
        """Of one copy."""

    def look(self, work: Work) -> float | None:
        """Return the rows a second of all copies; None while it is not known."""
        base = self._base
        if base is None:
            self._base = work
        elif work.batches - base.batches >= WINDOW_BATCHES and work.seconds > base.seconds:
            self._base = work
            if self._is_warm:
                self._learn((work.rows - base.rows) / (work.seconds - base.seconds))
            # In the first ones code is compiled and memory found.
            self._is_warm = True
        return None if self._rate is None else self._rate * work.copies

    def pause(self) -> None:
        """Leave out what is done until the next look."""
        self._base = None

    def _learn(self, rate: float) -> None:
        self._rate = rate if self._rate is None else (self._rate + rate) / 2


class SharePolicy:
    """Decides on the aim for one predictor stage behind a hybrid one. Call `step` about every second with what was counted."""

    def __init__(self, name: str, most: float | None = None) -> None:
        """No aim yet.

        Args:
            name: Of the predictor stage.
            most: Largest share that the user allows; None: any.
        """
        self._name = name
        self._most = 1.0 if most is None else most
        self._meters = (_Meter(), _Meter(), _Meter())
        self._looked_at: float | None = None
        self._aim: float | None = None
        self._changed_at = 0.0
        self._went = 0.0
        """By how much the last change went up."""
        self._least = LEAST_CHANGE

    def step(self, now: float, cores: Work, ready: Work, raw: Work) -> Aim | None:
        """Take in what was counted so far; return a new aim, if there shall be one.

        Args:
            now: Seconds on any clock that only grows.
            cores: Rows that the copies on the cores made ready.
            ready: Rows that the predictors were given ready.
            raw: Rows that the predictors were given raw.
        """
        if (self._looked_at is not None and now - self._looked_at < WINDOW_SECONDS) or not (cores.copies and ready.copies):
            return None
        self._looked_at = now
        # A kind of which there were too few keeps the rate that was measured last.
        rates = [meter.look(work) for meter, work in zip(self._meters, (cores, ready, raw), strict=True)]
        known = [rate for rate in rates if rate is not None]
        return self._decide(now, Rates(*known)) if len(known) == len(rates) else None

    def pause(self) -> None:
        """Forget what was counted since the last look: something else has been going on."""
        self._looked_at = None
        for meter in self._meters:
            meter.pause()

    def _decide(self, now: float, rates: Rates) -> Aim | None:
        share = rates.best_share(self._most)
        if self._aim is not None:
            change = share - self._aim
            least = self._least if now - self._changed_at < CALM_SECONDS else LEAST_CHANGE
            if abs(change) < least:
                return None
            self._least = least
            if change * self._went < 0:
                # Figures that go up and down, or that follow the aim: between the two is right, and what goes less far counts no more.
                self._least, change = min(2 * least, _MOST_DOUBT), change / 2
            self._went = change
            share = self._aim + change
        self._aim, self._changed_at = share, now
        bound = f" (gpu_share allows {self._most:.0%})" if share == self._most < 1 else ""
        return Aim(
            share,
            f"{self._name}: aims at {share:.0%} raw rows{bound}: the cores make {rates.cores:,.0f} rows/s, the model {rates.ready:,.0f} "
            f"of theirs or {rates.raw:,.0f} raw ones, together {rates.together(share):,.0f}",
        )


class Turns:
    """Says which rows are next for the predictors of a stage, as far as there is a choice."""

    def __init__(self, aim: float, rows: int) -> None:
        """
        Args:
            aim: Share of the rows that shall go raw.
            rows: Of a batch, as batches have been so far.
        """
        self._aim = aim
        self._full = rows
        self._owed = 0.0
        """Raw rows by which they are behind the aim."""
        self._free = 0.0
        """Raw rows by which they are behind what they may take where no ready ones wait."""

    def took(self, rows: int, *, raw: bool) -> None:
        """Take note of a batch that was given to a predictor, whether there was a choice or not."""
        self._full = max(self._full, rows)
        self._owed = self._kept(self._owed + self._aim * rows - rows * raw)
        self._free = self._kept(self._free + min(1.0, self._aim + _MARGIN) * rows - rows * raw)

    @property
    def is_raw(self) -> bool:
        """The next batch shall be a raw one where both wait: that brings the share nearer to the aim."""
        return self._owed + self._aim * self._full > self._full / 2

    def may_be_raw(self, under_way: int) -> bool:
        """Tell whether a predictor with so many batches under way may take a raw one when no ready one is there.

        Before it runs dry it must; one that it takes only because a slot is free keeps out a ready one that comes next.
        """
        least = (-self._full if under_way < _ENOUGH else self._full) / 2
        return not under_way or self._free + self._aim * self._full >= least

    def _kept(self, owed: float) -> float:
        most = _MOST_OWED * self._full
        return min(max(owed, -most), most)
