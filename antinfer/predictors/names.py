"""Functions and classes that are given as themselves, or in a job file by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from antinfer.spec import usercode


def function(given: Callable[..., Any] | str) -> Callable[..., Any]:
    """Return what `given` is, or names as ``module:name``. Raises UserCodeError when there is no such thing."""
    # No folder of its own: the job's is on the path by the time that user code runs.
    return usercode.resolve(given, "") if isinstance(given, str) else given
