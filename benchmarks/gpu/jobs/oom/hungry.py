from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch

FULL = 2048
ROOM = 2.5
"""What fits into the device: so many times what `FULL` rows of cost 1 need."""


class Hungry:
    """Takes memory in proportion to rows and their cost; says in which process it runs, and how often there was not enough."""

    def __init__(self) -> None:
        self._failed = 0
        self._unit = torch.cuda.get_device_properties(0).total_memory / (FULL * ROOM) if torch.cuda.is_available() else 0.0

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        rows, cost = len(batch["cost"]), int(batch["cost"].max())
        try:
            self._take(rows * cost)
        except torch.cuda.OutOfMemoryError:
            self._failed += 1
            raise
        numbers = {"doubled": 2 * batch["id"], "rows": rows, "process": os.getpid(), "failed": self._failed}
        return {name: np.broadcast_to(np.asarray(value, np.int64), rows).copy() for name, value in numbers.items()}

    def _take(self, units: int) -> None:
        if self._unit:
            memory = torch.empty(int(units * self._unit), dtype=torch.uint8, device="cuda").fill_(1)
            del memory
        elif units > FULL * ROOM:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory: as there is no such device, it has no such memory")
