"""User code of the modelled pipelines, and what it should make of a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

BAD = "bad"
"""What `expected` returns for a row that goes to quarantine."""

Stage = tuple[str, tuple[int, ...]]
"""Kind of a stage, and the values of its rows that raise."""


class Double:
    """One value for each row, in an array that every call fills again."""

    def __init__(self, bad: Sequence[int] = ()) -> None:
        self.bad = set(bad)
        self.out = np.zeros(1 << 10, np.int64)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        if self.bad & set(batch["v"].tolist()):
            raise ValueError("a bad row")
        view = self.out[: len(batch["v"])]
        view[:] = batch["v"] * 2 + 1
        batch["v"] -= 7
        return {"v": view}


class Total:
    """Makes a number of what a gather collected."""

    def __init__(self, bad: Sequence[int] = ()) -> None:
        self.bad = set(bad)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        totals = [sum(child["v"] for child in children) for children in batch["kids"]]
        if self.bad & set(totals):
            raise ValueError("a bad row")
        return {"v": np.array(totals, dtype=np.int64)}


class Keep:
    def __init__(self, bad: Sequence[int] = ()) -> None:
        self.bad = set(bad)

    def __call__(self, row: dict[str, Any]) -> bool:
        if row["v"] in self.bad:
            raise ValueError("a bad row")
        return bool(row["v"] % 3)


class Spread:
    def __init__(self, bad: Sequence[int] = ()) -> None:
        self.bad = set(bad)

    def __call__(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        if row["v"] in self.bad:
            raise ValueError("a bad row")
        return [{"v": row["v"] + i} for i in range(row["v"] % 4)]


def expected(stages: Sequence[Stage], value: int) -> list[int] | str:
    """Return the output values of an input row, or BAD."""
    values = [value]
    for at, (kind, bad) in enumerate(stages):
        if kind == "gather":
            continue
        if kind == "total":
            raise AssertionError("a total follows on a gather")
        if set(bad) & set(values):
            return BAD
        if kind == "map":
            values = [2 * v + 1 for v in values]
        elif kind == "filter":
            values = [v for v in values if v % 3]
        elif kind == "spread":
            inner, rest = _group(stages[at + 1 :])
            made: list[int] = []
            for v in values:
                children = [expected(inner, v + i) for i in range(v % 4)]
                if BAD in children:
                    return BAD
                flat = [one for child in children for one in child]
                outcome = flat if rest is None else _gathered(rest, sum(int(one) for one in flat))
                if isinstance(outcome, str):
                    return BAD
                made += [int(one) for one in outcome]
            return made
    return values


def _gathered(rest: Sequence[Stage], total: int) -> list[int] | str:
    (_, bad), *after = rest
    return BAD if total in bad else expected(after, total)


def _group(stages: Sequence[Stage]) -> tuple[Sequence[Stage], Sequence[Stage] | None]:
    """Split what follows on a spread into the stages inside of its group and those behind its gather; None when nothing gathers it."""
    depth = 1
    for at, (kind, _) in enumerate(stages):
        depth += (kind == "spread") - (kind == "gather")
        if not depth:
            return stages[:at], stages[at + 1 :]
    return stages, None
