"""Recipes: runs written down, so that exactly this run can be had again in another year: scenario, seed and faults, one JSON line each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from antinfer.core.interval import IntervalPolicy
from antinfer.testing.sim.faults import Fault
from antinfer.testing.sim.runner import Outcome, run
from antinfer.testing.sim.scenario import Scenario

T = TypeVar("T")

_PLAIN: Final = Scenario("")
_ABSENT: Final = {"interval": IntervalPolicy()}
"""Policies that are usually left out, as they are then written down against."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """One run, whole."""

    scenario: Scenario
    seed: int
    faults: tuple[Fault, ...]
    note: str = ""
    """What it once showed."""

    @classmethod
    def of(cls, scenario: Scenario, outcome: Outcome, note: str = "") -> Recipe:
        """Write down the run that ended in `outcome`."""
        return cls(scenario, outcome.seed, outcome.faults, note)

    def play(self) -> Outcome:
        return run(self.scenario, self.seed, self.faults)

    def to_text(self) -> str:
        """Return one line of JSON; `parse` is its inverse. Raises ValueError for a scenario with stage directions."""
        if self.scenario.script is not None:
            raise ValueError(f"scenario {self.scenario.name!r} has stage directions, which cannot be written down")
        scenario = _changes(self.scenario, _PLAIN)
        return json.dumps({"note": self.note, "seed": self.seed, "faults": [list(fault) for fault in self.faults], "scenario": scenario})

    @classmethod
    def parse(cls, text: str) -> Recipe:
        """Read what `to_text` wrote. Raises ValueError, KeyError or TypeError when it means nothing to this version."""
        data = json.loads(text)
        faults = tuple(Fault.parse(fault) for fault in data["faults"])
        return cls(_changed(_PLAIN, data["scenario"]), int(data["seed"]), faults, data["note"])


def read(path: Path) -> list[Recipe]:
    """Return the recipes of a file, none when there is no file."""
    return [Recipe.parse(line) for line in path.read_text().splitlines() if line.strip()] if path.exists() else []


def append(path: Path, recipes: Iterable[Recipe]) -> int:
    """Add to a file those of `recipes` that it does not hold yet; return how many."""
    known = {replace(recipe, note="").to_text() for recipe in read(path)}
    new = [recipe for recipe in recipes if replace(recipe, note="").to_text() not in known]
    with path.open("a") as file:
        file.writelines(f"{recipe.to_text()}\n" for recipe in new)
    return len(new)


# -- scenarios as JSON: what differs from the plain one ------------------------------------------------------------------------------
def _changes(thing: Any, plain: Any) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for each in fields(thing):
        value, usual = getattr(thing, each.name), getattr(plain, each.name)
        if value != usual:
            changes[each.name] = _changes(value, usual or _ABSENT[each.name]) if is_dataclass(value) else _data(value)
    return changes


def _data(value: Any) -> Any:
    if isinstance(value, frozenset):
        return [_data(each) for each in sorted(value)]
    if isinstance(value, tuple):
        return [_data(each) for each in value]
    return dict(value) if isinstance(value, Mapping) else value


def _changed(plain: T, changes: Mapping[str, Any]) -> T:
    usual = {name: getattr(plain, name) for name in changes}
    values = {name: _value(_ABSENT.get(name) if usual[name] is None else usual[name], data) for name, data in changes.items()}
    return replace(plain, **values)  # type: ignore[type-var]


def _value(usual: Any, data: Any) -> Any:
    if is_dataclass(usual):
        return _changed(usual, data)
    if isinstance(data, list):
        items = tuple(tuple(each) if isinstance(each, list) else each for each in data)
        return frozenset(items) if isinstance(usual, frozenset) else items
    return data
