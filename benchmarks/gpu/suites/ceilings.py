"""What this machine's cores, decoder and model can do alone, and what all three could do together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.gpu.arena import Arena
from benchmarks.gpu.datasets import Recipe

_NAME = "ceilings"


def jpegs(arena: Arena) -> Path:
    """Return the folder of the large set of JPEGs."""
    return arena.input(Recipe("jpeg", arena.settings.rows(200_000, 1_024), 4 if arena.settings.quick else 192))


def run(arena: Arena) -> None:
    """Measure all."""
    cores = arena.settings.cores
    threads = sorted({cores, max(1, cores - 2)})
    for count in threads:
        arena.add(_NAME, f"decode, {count} threads", rate(decode(arena, count)), "img/s")
    for count in threads:
        arena.add(_NAME, f"decode, {count} threads, beside a reader and a predictor", rate(beside(arena, count)), "img/s")
    for decoder in ("ours", "plain"):
        arena.add(_NAME, f"decode on the device alone ({decoder})", rate(gpu_decode(arena, decoder)), "img/s")
    for compiled in (False, True):
        what = "compiled" if compiled else "eager"
        arena.add(_NAME, f"model alone, batch 256, {what}", rate(model(arena, compiled=compiled)), "img/s")
    best, share = joint(arena)
    arena.add(_NAME, "decode and model together, computed", best, "img/s", share_on_cores=share)


def rate(measured: dict[str, Any] | None) -> float | None:
    return None if measured is None else float(measured["rate"])


def decode(arena: Arena, threads: int) -> dict[str, Any] | None:
    return arena.ceiling("decode", source=str(jpegs(arena)), threads=threads, seconds=_seconds(arena))


def beside(arena: Arena, threads: int) -> dict[str, Any] | None:
    network = arena.settings.network("resnet50")
    return arena.ceiling("beside", source=str(jpegs(arena)), threads=threads, network=network, seconds=_seconds(arena))


def gpu_decode(arena: Arena, decoder: str) -> dict[str, Any] | None:
    return arena.ceiling("gpu_decode", source=str(jpegs(arena)), decoder=decoder, seconds=_seconds(arena))


def model(arena: Arena, *, compiled: bool, network: str = "resnet50", batch: int = 256) -> dict[str, Any] | None:
    compiles = int(compiled and arena.settings.compiled)
    return arena.ceiling("model", network=arena.settings.network(network), compiled=compiles, batch=batch, seconds=_seconds(arena))


def loaded_decode(arena: Arena) -> float | None:
    """Return the rate of decoding on all cores but two, beside a reader and a predictor."""
    return rate(beside(arena, max(1, arena.settings.cores - 2)))


def joint(arena: Arena) -> tuple[float | None, float | None]:
    """Return what cores, decoder and model of this machine can do together, and the share of the pictures that the cores decode then."""
    cores, decoder, computes = (
        rate(decode(arena, arena.settings.cores)),
        rate(gpu_decode(arena, "ours")),
        rate(model(arena, compiled=True)),
    )
    if cores is None or decoder is None or computes is None:
        return None, None
    return together(cores, decoder, computes)


def together(cores: float, decoder: float, model: float) -> tuple[float, float]:
    """Return the best rate, and the share of the pictures that the cores decode for it.

    The device decodes and computes by turns: a picture decoded there takes 1/model + 1/decoder of its time, another one 1/model.
    """
    shares = [n / 1_000 for n in range(1, 1_001)]
    return max((min(cores / share, 1 / (1 / model + (1 - share) / decoder)), share) for share in shares)


def _seconds(arena: Arena) -> float:
    return 1.0 if arena.settings.quick else 6.0
