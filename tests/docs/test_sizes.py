"""The size gate: a module that outgrows it is two things and wants to be two modules."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MOST_LINES = 500


def test_modules_are_small() -> None:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py", "*.lua"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    files = [ROOT / name for name in listed if "_pb2" not in name]
    lengths = {path.relative_to(ROOT): len(path.read_text().splitlines()) for path in files if path.is_file()}

    assert len(lengths) > 20, "the listing found no source files"
    assert {str(path): lines for path, lines in lengths.items() if lines > MOST_LINES} == {}
