"""``python -m benchmarks [NAMES] [--quick] [--out FILE]``."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from benchmarks import machine, report

BENCHMARKS: Final = {
    "core_steps": "the pure core alone: events per second with a million shards planned",
    "control_plane": "grants and commits through gRPC streams and a durable Valkey",
    "event_log": "what writing down every event costs the control plane",
    "assembler": "what a batch costs between stages",
    "handover": "large batches to a predictor process and back",
    "startup": "how soon a job reads its first row, and how long a small one takes",
    "bad_rows": "what rows cost that crash, hang or raise",
    "faults": "the same faults for a job and for Ray Data: workers, command and master killed, bad rows",
    "skewed": "what one dear shard costs a job, and how soon the rows of a killed worker are leased again",
    "resume_99": "what finished rows cost a resume",
    "identity_1m_command": "a whole command at a million rows, against a whole Ray script",
    "identity_10m": "ten million rows from Parquet to Parquet, against bare pyarrow and Ray Data",
    "text_embed": "MiniLM on the CPU, against Ray Data and plain loops",
    "image_classify": "EfficientNet-Lite0 on the CPU, against Ray Data and a plain loop",
    "two_models": "a model for pictures and one for the faces in them, against the two in sequence",
}
_RESULTS: Final = Path(__file__).parent / "results"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure the numbers that antinfer promises.",
        epilog="What needs a GPU has a command of its own: python -m benchmarks.gpu --help",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which ones (all): {', '.join(BENCHMARKS)}")
    parser.add_argument("--quick", action="store_true", help="small sizes and one repetition: shows that it runs, the numbers mean nothing")
    parser.add_argument("--out", type=Path, help="JSON file to write (benchmarks/results/<time>.json)")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(BENCHMARKS))
    if unknown:
        parser.error(f"no benchmark is called {unknown[0]}; there are {', '.join(BENCHMARKS)}")
    path = options.out or _RESULTS / f"{datetime.now(UTC):%Y%m%d-%H%M%S}.json"
    described = machine.describe()
    results: list[report.Result] = []
    for name in options.names or BENCHMARKS:
        print(f"{name}: {BENCHMARKS[name]}", file=sys.stderr, flush=True)
        measure: Callable[[bool], list[report.Result]] = importlib.import_module(f"benchmarks.{name}").measure
        results += measure(options.quick)
        # After each one: the next may take many minutes, or fail.
        report.write(path, described, results, quick=options.quick)
    print(report.table(results))
    print(f"written to {path}", file=sys.stderr)
    return 0 if all(result.verdict != "missed" for result in results) or options.quick else 1


if __name__ == "__main__":
    sys.exit(main())
