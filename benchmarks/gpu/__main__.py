"""``python -m benchmarks.gpu SUITES --out FILE``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
import traceback
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from benchmarks import machine, report
from benchmarks.gpu.arena import Arena, Settings
from benchmarks.gpu.sampler import gpu_names
from benchmarks.gpu.suites import SUITES

_PACKAGES: Final = ("torchvision", "opencv-python-headless", "triton", "nvidia-ml-py", "scikit-image")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="Measure what antinfer promises of GPUs.")
    parser.add_argument("suites", nargs="+", choices=SUITES, metavar="SUITE", help=f"{', '.join(SUITES)}")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--data", type=Path, default=Path("/tmp/antinfer-gpu-data"), help="folder of inputs, kept, and of outputs")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny models and few rows: shows that it runs, the numbers mean nothing")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the number of rows")
    parser.add_argument("--rounds", type=int, default=2, help="rounds of the suite short")
    parser.add_argument("--decoders", type=int, help="threads that decode in our jobs (as many as antinfer finds right)")
    parser.add_argument("--budget", type=float, default=540.0, help="seconds for all suites together, data included")
    parser.add_argument("--label", default="", help="the commit, where the files are a copy that does not know its own")
    options = parser.parse_args()
    started = time.monotonic()
    cores = len(os.sched_getaffinity(0))
    settings = Settings(options.device, options.quick, options.scale, options.rounds, cores, options.decoders)
    arena = Arena(options.data, settings)
    arena.allow(options.budget)
    _warm_up()
    described = _machine(options)
    failed = []
    for name in options.suites:
        print(f"{name} ({arena.left():.0f} s left)", flush=True)
        try:
            SUITES[name](arena)
        except Exception:  # noqa: BLE001 - what was measured so far is worth keeping
            failed.append(name)
            traceback.print_exc()
        _write(options.out, described, arena, options, time.monotonic() - started)
    print(report.table(arena.results))
    for run in arena.runs:
        if run.error:
            lines = run.error.splitlines()
            print(f"FAILED {run.contestant}: {lines[0]}: {lines[-1][:300]}")
    print(f"{time.monotonic() - started:.0f} s; written to {options.out}")
    return 1 if failed or any(run.error for run in arena.runs) else 0


def _warm_up() -> None:
    """Have the disk give up what every contestant imports, or the first one would wait for it alone."""
    wanted = "torch", "torchvision", "ray.data", "cv2", "pyarrow.dataset", "grpc", "torch._inductor.compile_fx"
    code = "\n".join(f"try:\n    import {name}\nexcept ImportError:\n    pass" for name in wanted)
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def _machine(options: argparse.Namespace) -> dict[str, Any]:
    described = machine.describe()
    if options.label:
        described["commit"] = options.label
        del described["uncommitted_changes"]
    return described | {
        "gpus": gpu_names(),
        "device": options.device,
        "shared_memory_gib": round(_size("/dev/shm") / 2**30, 1),
        "more_packages": {name: _version(name) for name in _PACKAGES},
        "interpreter": platform.python_implementation(),
    }


def _size(path: str) -> int:
    found = os.statvfs(path)
    return found.f_frsize * found.f_blocks


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _write(path: Path, described: dict[str, Any], arena: Arena, options: argparse.Namespace, seconds: float) -> None:
    document = {
        "quick": options.quick,
        "machine": described,
        "suites": options.suites,
        "scale": options.scale,
        "decoders": options.decoders,
        "seconds": round(seconds, 1),
        "inputs": arena.inputs,
        "results": [result.to_json() for result in arena.results],
        "runs": [run.to_json() for run in arena.runs],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
