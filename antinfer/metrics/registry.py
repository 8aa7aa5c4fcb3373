"""From a `type:` of the job file to an accumulator class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from antinfer.metrics.auroc import Auroc
from antinfer.metrics.base import Accumulator
from antinfer.metrics.basic import Count, Mean
from antinfer.metrics.config import Config, near
from antinfer.metrics.confusion import ConfusionMatrix
from antinfer.metrics.cross_entropy import CrossEntropy
from antinfer.metrics.histogram import Histogram

Resolve = Callable[[str], Any]
"""Imports the object that a ``module:name`` stands for; raises AntinferError when it cannot."""

BUILT_IN: Final[dict[str, type[Accumulator]]] = {
    "auroc": Auroc,
    "confusion_matrix": ConfusionMatrix,
    "count": Count,
    "cross_entropy": CrossEntropy,
    "histogram": Histogram,
    "mean": Mean,
}


def accumulator_class(config: Config, resolve: Resolve) -> type[Accumulator]:
    """Return the class that the entry's `type` names, a built-in one or the user's own.

    Raises:
        JobFileError: `type` is missing, unknown, or not a subclass of `Accumulator` with all its methods.
    """
    kind = config.take("type")
    allowed = f'one of {", ".join(BUILT_IN)}, or "module:Class" for an accumulator of your own'
    if kind is None:
        raise config.error("type", f"missing; {allowed}")
    if not isinstance(kind, str):
        raise config.error("type", f"must be {allowed}, not {kind!r}")
    if ":" not in kind:
        if kind not in BUILT_IN:
            raise config.error("type", f"unknown type {kind!r}; {allowed}", hint=near(kind, BUILT_IN))
        return BUILT_IN[kind]
    own = resolve(kind)
    if not isinstance(own, type) or not issubclass(own, Accumulator):
        raise config.error("type", f"{kind!r} is not a subclass of antinfer.metrics.Accumulator")
    missing = sorted(own.__abstractmethods__)
    if missing:
        raise config.error("type", f"{kind!r} lacks the method {missing[0]}()")
    return own
