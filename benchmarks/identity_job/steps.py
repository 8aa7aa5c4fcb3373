from __future__ import annotations

from typing import Any


class Identity:
    """A model that costs nothing: what is left is the cost of getting rows to it and back."""

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"y": batch["x"]}
