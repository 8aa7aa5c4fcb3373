"""Which share of the rows of a hybrid stage goes raw to the predictor behind it, pure.

Cores and predictors work at once: the cores make rows ready, a predictor takes these or does raw ones from the start, which takes it
longer. With a raw share s they make, in rows a second, at most

    min(cores / (1 - s), 1 / ((1 - s) / ready + s / raw))

The highest rate is where both are as large: less, and rows that are ready wait for the predictors; more, and the cores cannot keep up.
`Rates` finds it, `SharePolicy` from what is measured while the pipeline runs, and `Turns` keeps to it batch by batch.
"""

from __future__ import annotations

from dataclasses import dataclass

NEAR = 0.05
"""Raw rows must be faster by more than this than ready ones to leave the cores out: figures of a running pipeline are never quite exact."""
LEAST_CHANGE = 0.05
"""A new aim differs by so much from the one before."""
WINDOW_SECONDS = 2.0
"""So far are looks at the figures apart at least."""
WINDOW_BATCHES = 8
"""Batches of a kind that a measurement of it has to see."""
CALM_SECONDS = 60.0
"""After so long without a change, an aim that was taken back is no reason for doubt any more."""
_MOST_OWED = 2
"""Batches by which a predictor may be behind its aim: rows that were not there when it was their turn are not made up for in one go."""


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
        """Return the raw share, at most `most`, with the highest rate; of equal ones the smallest."""
        if not self.cores or self.raw > (1 + NEAR) * self.ready:
            return most
        if self.cores >= self.ready:
            return 0.0
        # For each row the cores make, the predictors have the rest of their time for raw ones.
        spare = 1 / self.cores - 1 / self.ready
        return min(most, spare / (spare + 1 / self.raw))


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
        if self._looked_at is not None and now - self._looked_at < WINDOW_SECONDS:
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
            # Where figures go up and down, or follow the aim, only what goes further counts.
            self._least = 2 * least if change * self._went < 0 else least
            self._went = change
        self._aim, self._changed_at = share, now
        bound = f" (gpu_share allows {self._most:.0%})" if share == self._most < 1 else ""
        return Aim(
            share,
            f"{self._name}: aims at {share:.0%} raw rows{bound}: the cores make {rates.cores:,.0f} rows/s, the model {rates.ready:,.0f} "
            f"of theirs or {rates.raw:,.0f} raw ones, together {rates.together(share):,.0f}",
        )


class Turns:
    """Says, where rows of both kinds wait for a predictor stage, which of them is next."""

    def __init__(self, aim: float) -> None:
        """`aim`: share of the rows that shall go raw."""
        self._aim = aim
        self._owed = 0.0
        """Raw rows by which it is behind."""

    def took(self, rows: int, *, raw: bool) -> None:
        """Take note of a batch that was given to a predictor, whether there was a choice or not."""
        owed = self._owed + self._aim * rows - rows * raw
        self._owed = min(max(owed, -_MOST_OWED * rows), _MOST_OWED * rows)

    def is_raw(self, rows: int) -> bool:
        """Tell whether a batch of about `rows` rows shall be a raw one: the kind after which the share is nearer to the aim."""
        return self._owed + self._aim * rows > rows / 2
