"""JPEGs in Parquet to labels in Parquet: ours, decoded on cores, on the device and on both, against a torch DataLoader and Ray Data."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from benchmarks.gpu import ours
from benchmarks.gpu.arena import Arena, Run
from benchmarks.gpu.datasets import Recipe
from benchmarks.gpu.suites import ceilings

_NAME = "images"
_EAGER: dict[str, Any] = {"pipeline.1.args.compiled": "false"}
_NO_DECODERS: dict[str, Any] = {"pipeline.0.gpu_share": 1, "pipeline.0.workers_as": "threads", "pipeline.0.concurrency": 1}


def run(arena: Arena) -> None:
    """Run our ways over the large set, beside what this machine can do, and the DataLoader."""
    source, rows = ceilings.jpegs(arena), arena.settings.rows(200_000, 1_024)
    on_cores = antinfer(arena, "antinfer, decodes on cores", source, rows)
    hybrid = antinfer(arena, "antinfer, decodes on both", source, rows, job="images/hybrid.yaml")
    on_device = antinfer(arena, "antinfer, decodes on the device", source, rows, job="images/hybrid.yaml", **_NO_DECODERS)
    loader = data_loader(arena, source, rows)
    plain = {"pipeline.1.predict": "benchmarks.gpu.classifier:Plain"}
    by_hand = antinfer(arena, "antinfer, decodes on cores, a plain class", source, rows, **plain)
    loaded = ceilings.loaded_decode(arena)
    best, _ = ceilings.joint(arena)

    arena.add(_NAME, "antinfer, decodes on cores, steady", steady(on_cores), "img/s")
    arena.add(_NAME, "antinfer, decodes on cores, a plain class, steady", steady(by_hand), "img/s")
    arena.add(_NAME, "antinfer, decodes on both, steady", steady(hybrid), "img/s")
    arena.add(_NAME, "antinfer, decodes on the device, steady", steady(on_device), "img/s")
    arena.add(_NAME, "decodes on cores against decoding alone beside a load", ratio(steady(on_cores), loaded), "x", 0.95)
    arena.add(_NAME, "decodes on both against the joint ceiling", ratio(steady(hybrid), best), "x", 0.9, ceiling=best)
    pure = max((value for value in (steady(on_cores), steady(on_device)) if value), default=None)
    arena.add(_NAME, "decodes on both against the better pure plan", ratio(steady(hybrid), pure), "x", 1.1)
    after = loader.after_first if loader else None
    arena.add(_NAME, "decodes on cores against DataLoader, both after the first batch", ratio(after_first(on_cores), after), "x", 1.4)
    arena.add(_NAME, "decodes on both against DataLoader, both after the first batch", ratio(after_first(hybrid), after), "x")
    arena.add(_NAME, "decodes on cores, whole, against DataLoader after its first batch", ratio(whole(on_cores), after), "x")


def against_ray(arena: Arena) -> None:
    """Run whole commands over the large set, and Ray Data as it comes and with its settings turned."""
    source, rows = ceilings.jpegs(arena), arena.settings.rows(200_000, 1_024)
    ours = {
        "decodes on cores": antinfer(arena, "antinfer, decodes on cores", source, rows),
        "decodes on both": antinfer(arena, "antinfer, decodes on both", source, rows, job="images/hybrid.yaml"),
        "decodes on both, not compiled": antinfer(
            arena, "antinfer, decodes on both, not compiled", source, rows, job="images/hybrid.yaml", **_EAGER
        ),
    }
    rays = [ray_data(arena, source, rows, tuned=tuned) for tuned in (True, False)]
    best = max(filter(None, rays), key=lambda run: run.whole_rate, default=None)
    working = best.rows / best.said["job_seconds"] if best else None
    for name, run in ours.items():
        # What is asked for is the same way of decoding.
        target = 2.5 if name == "decodes on cores" else None
        arena.add("images_ray", f"{name} against Ray Data, starts counted", ratio(whole(run), whole(best)), "x", target)
        arena.add("images_ray", f"{name} against Ray Data without ray.init", ratio(whole(run), working), "x", target)
        arena.add("images_ray", f"{name} against Ray Data, steady", ratio(steady(run), steady(best)), "x")


def short(arena: Arena) -> None:
    """Run whole commands over few rows, by turns."""
    rows = arena.settings.rows(32_768, 1_024)
    source = arena.input(Recipe("jpeg", rows, 4 if arena.settings.quick else 64))
    rates: dict[str, list[float]] = {}
    for _ in range(arena.settings.rounds):
        for done in (
            antinfer(arena, "short: antinfer, decodes on cores", source, rows),
            # Not compiled: that takes longer than it saves here.
            antinfer(arena, "short: antinfer, decodes on both", source, rows, job="images/hybrid.yaml", **_EAGER),
            ray_data(arena, source, rows, tuned=True, prefix="short: "),
            data_loader(arena, source, rows, prefix="short: "),
        ):
            if done is not None:
                rates.setdefault(done.contestant, []).append(done.whole_rate)
    best = {name: max(values) for name, values in rates.items()}
    for name, value in best.items():
        arena.add("short", f"{name.removeprefix('short: ')}, whole command", value, "img/s", all_rates=rates[name])
    ours = max((value for name, value in best.items() if "antinfer" in name), default=None)
    for name, value in best.items():
        if "antinfer" not in name:
            target = 3.0 if "Ray" in name else None
            arena.add("short", f"antinfer against {name.removeprefix('short: ')}, starts counted", ratio(ours, value), "x", target)


def antinfer(arena: Arena, name: str, source: Path, rows: int, *, job: str = "images/job.yaml", **sets: Any) -> Run | None:
    """Run one of our job files; `sets` are fields of it."""
    usual: dict[str, Any] = {"pipeline.1.args.network": arena.settings.network("resnet50")}
    if not arena.settings.compiled and job != "images/job.yaml":
        usual["pipeline.1.args.compiled"] = "false"
    if arena.settings.decoders:
        usual["pipeline.0.concurrency"] = arena.settings.decoders
    return ours.run(arena, name, job, source, rows, usual | sets)


def data_loader(arena: Arena, source: Path, rows: int, prefix: str = "") -> Run | None:
    """Run the tuned DataLoader."""
    settings = arena.settings
    given = {"workers": settings.cores, "network": settings.network("resnet50"), "device": settings.device}
    command = [sys.executable, "-m", "benchmarks.gpu.contestants.data_loader", str(source), "{out}", "--ticks", "{ticks}"]
    command += [part for key, value in given.items() for part in (f"--{key}", str(value))]
    known = given | {"batch": 256, "prefetch_factor": 4, "pinned": True, "whole row groups decoded by workers": True}
    return arena.run(f"{prefix}DataLoader", command, rows=rows, settings=known)


def ray_data(arena: Arena, source: Path, rows: int, *, tuned: bool, prefix: str = "") -> Run | None:
    """Run Ray Data, as it comes or with its settings turned."""
    settings = arena.settings
    given = {"tuned": int(tuned), "network": settings.network("resnet50"), "device": settings.device}
    command = [sys.executable, "-m", "benchmarks.gpu.contestants.ray_data", str(source), "{out}", "--ticks", "{ticks}"]
    command += [part for key, value in given.items() for part in (f"--{key}", str(value))]
    # It would take the little memory that a growing machine shows for all that there is, and end its workers.
    return arena.run(
        f"{prefix}Ray Data{', tuned' if tuned else ''}",
        command,
        rows=rows,
        settings=given,
        environment={"RAY_memory_monitor_refresh_ms": "0"},
    )


def steady(run: Run | None) -> float | None:
    return run.steady if run else None


def whole(run: Run | None) -> float | None:
    return run.whole_rate if run else None


def after_first(run: Run | None) -> float | None:
    return run.after_first if run else None


def ratio(value: float | None, base: float | None) -> float | None:
    return value / base if value and base else None
