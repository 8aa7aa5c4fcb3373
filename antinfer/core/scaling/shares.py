"""How a number of workers is shared between the two classes, exactly."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

from antinfer.core.scaling.values import PREEMPTIBLE, PROTECTED


@lru_cache(maxsize=64)
def _exact(share: float) -> tuple[int, int]:
    # What was written, 0.07, and not the binary number next to it: 100 workers make 7, not 8.
    return Fraction(repr(share)).as_integer_ratio()


def split(total: int, on_demand: float) -> dict[str, int]:
    """Return the workers of each class among `total`: of the protected at least the share `on_demand`, and not one more than that takes.

    With one more in total one class has one more, and the other as many as before; so growing never drains anybody.
    """
    parts, whole = _exact(on_demand)
    protected = -(-parts * total // whole)
    return {PROTECTED: protected, PREEMPTIBLE: total - protected}
