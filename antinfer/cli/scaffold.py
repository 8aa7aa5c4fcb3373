"""``init``: a small job that runs as it is."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import typer

from antinfer.errors import UsageError

_FILES = ("job.yaml", "steps.py")
_DATA_ROWS = 1_000


def init(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty", hint="name a folder that does not exist yet")
    try:
        (folder / "data").mkdir(parents=True, exist_ok=True)
        template = files("antinfer.cli") / "template"
        for name in _FILES:
            (folder / name).write_text((template / name).read_text(encoding="utf-8"), encoding="utf-8")
        for part in range(2):
            (folder / "data" / f"rows-{part}.csv").write_text(_sample(part), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write into {folder}: {error.strerror}") from error
    typer.echo(f"{folder}: job.yaml, steps.py, data/\nnext: antinfer run {folder} && antinfer verify {folder}/output")


def _sample(part: int) -> str:
    """Rows whose label leans on a - b, made by arithmetic so that every scaffold is the same."""
    lines = ["id,a,b,label"]
    for i in range(part * _DATA_ROWS, (part + 1) * _DATA_ROWS):
        a, b = (i * 7919 % 1000) / 500 - 1, (i * 104729 % 1000) / 500 - 1
        noise = (i * 15485863 % 1000) / 500 - 1
        lines.append(f"{i},{a:.3f},{b:.3f},{int(a - b + noise > 0)}")
    return "\n".join(lines) + "\n"
