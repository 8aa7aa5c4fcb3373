"""How results and errors are printed."""

from __future__ import annotations

import json
import sys
import traceback
from typing import Any

import typer

from antinfer.errors import LAST_LINE, AntinferError, InternalError, UserCodeError


def error(problem: AntinferError) -> int:
    """Print an error for its reader and return the exit status.

    A mistake of the user's gets no traceback of ours, but the user's own is kept whole; a bug of ours gets everything.
    """
    if isinstance(problem, InternalError):
        traceback.print_exception(problem, file=sys.stderr)
    if isinstance(problem, UserCodeError) and problem.user_traceback:
        typer.echo(problem.user_traceback.rstrip("\n"), err=True)
    typer.echo(f"{LAST_LINE}{problem.text}", err=True)
    return problem.exit_code


def as_json(data: Any) -> None:
    """Print one JSON object."""
    typer.echo(json.dumps(data, default=str))


def facts(rows: list[tuple[str, object]]) -> None:
    """Print name and value in two columns."""
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        typer.echo(f"{name:<{width}}  {value}")
