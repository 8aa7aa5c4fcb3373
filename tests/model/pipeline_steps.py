"""User code of the modelled pipelines, and what it should make of a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

BAD = "bad"
"""What `expected` returns for a row that goes to quarantine."""


@dataclass(frozen=True)
class Step:
    """One modelled stage: every row has the number ``v``, and may have more inside of a step."""

    kind: str
    bad: tuple[int, ...] = ()
    """Values of ``v`` that raise."""
    branches: tuple[tuple[Step, ...], ...] = ()


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


class Name:
    """Renames ``v``, as branches must that meet each other."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {self.name: batch["v"]}


class Sum:
    """Makes one number of the columns of all branches."""

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"v": sum((at + 1) * batch[name] for at, name in enumerate(sorted(batch)))}


def flag(value: int) -> bool | None:
    """Tell whether a row with `value` takes the conditional step; None stands for null, and means no."""
    return None if value % 5 == 1 else value % 3 == 0


class Scramble:
    """Adds a length that has nothing to do with the order of rows."""

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"v": batch["v"], "k": batch["v"] * 7 % 50}


class Flag:
    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"v": batch["v"], "go": [flag(value) for value in batch["v"].tolist()]}


class Replace:
    """Replaces a column and adds one."""

    def __init__(self, bad: Sequence[int] = ()) -> None:
        self.bad = set(bad)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        values = batch["v"].tolist()
        if self.bad & set(values) or not all(map(flag, values)):
            raise ValueError("a bad row")
        return {"v": batch["v"] * 3 + 1, "w": batch["v"] + 2}


class Merge:
    """Makes a number of what a conditional step replaced and added."""

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        added = batch.get("w", np.zeros(len(batch["v"])))
        return {"v": batch["v"] + np.nan_to_num(np.asarray(added, dtype=np.float64)).astype(np.int64)}


def expected(steps: Sequence[Step], value: int) -> list[int] | str:
    """Return the output values of an input row, or BAD."""
    values = [value]
    for at, step in enumerate(steps):
        if step.kind == "gather":
            continue
        if step.kind == "total":
            raise AssertionError("a total follows on a gather")
        if step.kind == "spread":
            return _spread(step, steps[at + 1 :], values)
        made = [_one(step, v) for v in values]
        if BAD in made:
            return BAD
        values = [int(one) for each in made for one in each]
    return values


def _one(step: Step, v: int) -> list[int] | str:
    """Return what a step that does not fan out makes of a row."""
    goes = flag(v) or step.kind not in ("when", "when_filter", "when_branches")
    if goes and v in step.bad:
        return BAD
    if step.kind == "filter" or (step.kind == "when_filter" and goes):
        return [v] if v % 3 else []
    if step.kind in ("map", "bucket"):
        return [2 * v + 1]
    if step.kind == "hybrid":
        return [2 * (2 * v + 1) + 1]
    if step.kind == "when":
        return [v * 3 + 1 + v + 2 if goes else v]
    if step.kind == "parallel" or (step.kind == "when_branches" and goes):
        made = [expected(branch, v) for branch in step.branches]
        if BAD in made:
            return BAD
        if [] in made:
            return []
        each = [int(one) for (one,) in made]  # type: ignore[misc]
        total = sum((at + 1) * one for at, one in enumerate(each))
        return [total if step.kind == "parallel" else v + each[0]]
    return [v]


def _spread(step: Step, following: Sequence[Step], values: Sequence[int]) -> list[int] | str:
    if set(step.bad) & set(values):
        return BAD
    inner, rest = _group(following)
    found: list[int] = []
    for v in values:
        children = [expected(inner, v + i) for i in range(v % 4)]
        if BAD in children:
            return BAD
        flat = [int(one) for child in children for one in child]
        outcome = flat if rest is None else _gathered(rest, sum(flat))
        if isinstance(outcome, str):
            return BAD
        found += outcome
    return found


def _gathered(rest: Sequence[Step], total: int) -> list[int] | str:
    first, *after = rest
    return BAD if total in first.bad else expected(after, total)


def _group(steps: Sequence[Step]) -> tuple[Sequence[Step], Sequence[Step] | None]:
    """Split what follows on a spread into the steps inside of its group and those behind its gather; None when nothing gathers it."""
    depth = 1
    for at, step in enumerate(steps):
        depth += (step.kind == "spread") - (step.kind == "gather")
        if not depth:
            return steps[:at], steps[at + 1 :]
    return steps, None
