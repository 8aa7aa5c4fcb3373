"""Quantities of resources as objects write them (`500m`, `2Gi`), as exact numbers."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Final

from tests.k8s.double.objects import Object

_ONE: Final = Fraction(1)
_SUFFIXES: Final = {
    "": Fraction(1),
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    **{letter: Fraction(1000**power) for power, letter in enumerate("kMGTPE", start=1)},
    **{f"{letter}i": Fraction(1024**power) for power, letter in enumerate("KMGTPE", start=1)},
}
_FORM: Final = re.compile(r"([+-]?[0-9]+(?:\.[0-9]*)?|[+-]?\.[0-9]+)([eE][+-]?[0-9]+|[numkMGTPE]|[KMGTPE]i)?")


@functools.lru_cache(maxsize=4096)
def parse(quantity: str | int | float) -> Fraction:
    """The number that a quantity stands for. Raises ValueError where it is none."""
    found = _FORM.fullmatch(str(quantity))
    if found is None:
        raise ValueError("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")
    number, suffix = found.group(1), found.group(2) or ""
    if suffix[:1] in ("e", "E") and len(suffix) > 1:
        return Fraction(number + suffix)
    return Fraction(number) * _SUFFIXES[suffix]


def requests_of(spec: Object) -> dict[str, Fraction]:
    """What a pod asks of its node: the sum over its containers, or the largest init container where that is more; and one pod."""
    total: dict[str, Fraction] = {}
    for container in spec.get("containers", []):
        for name, amount in _asked(container).items():
            total[name] = total[name] + amount if name in total else amount
    for container in spec.get("initContainers", []):
        for name, amount in _asked(container).items():
            total[name] = max(total.get(name, Fraction(0)), amount)
    total["pods"] = _ONE
    return total


def _asked(container: Object) -> dict[str, Fraction]:
    resources = container.get("resources") or {}
    asked: Mapping[str, str] = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return {name: parse(amount) for name, amount in asked.items()}


def show(amount: Fraction) -> str:
    """A quantity in plain form."""
    if amount.denominator == 1:
        return str(amount.numerator)
    return f"{int(amount * 1000)}m"
