from __future__ import annotations

import time
from pathlib import Path
from typing import Any

STAMP = Path(__file__).with_name("first_row")


def stamp(batch: dict[str, Any]) -> dict[str, Any]:
    """Note when the first rows were here."""
    if not STAMP.exists():
        STAMP.write_text(str(time.time()))
    return batch


class Identity:
    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"y": batch["x"]}
