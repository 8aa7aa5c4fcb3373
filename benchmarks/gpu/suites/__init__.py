"""What is run and compared, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from benchmarks.gpu.arena import Arena
from benchmarks.gpu.suites import ceilings, images, memory, raw, two_models

SUITES: Final[dict[str, Callable[[Arena], None]]] = {
    "ceilings": ceilings.run,
    "images": images.run,
    "images_ray": images.against_ray,
    "raw": raw.run,
    "two_models": two_models.run,
    "small_model": raw.small_model,
    "two_gpus": raw.two_gpus,
    "oom": memory.run,
    "short": images.short,
}
