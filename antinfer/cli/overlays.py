"""Files with what a user lays over workers of their own making: YAML, by who they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from antinfer.errors import JobFileError, UsageError


def read_overlays(path: Path | None, names: Sequence[str], holds: str) -> dict[str, dict[str, Any]]:
    """Return what is laid over each of `names`, nothing where the file does not say; None: nothing at all.

    Args:
        path: the file.
        names: its keys.
        holds: what it holds under each, for messages.

    Raises:
        UsageError: The file cannot be read.
        JobFileError: It holds something else.
    """
    found: Any = {}
    if path is not None:
        from antinfer.spec.yamlfile import read_yaml

        try:
            found, _ = read_yaml(path.read_text(encoding="utf-8"), str(path))
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}") from error
    if not isinstance(found, dict) or not all(isinstance(each, dict) for each in found.values()):
        raise JobFileError(f"{path}: must hold {holds} under {', '.join(names)}")
    unknown = next((key for key in found if key not in names), None)
    if unknown is not None:
        raise JobFileError(f"{path}: {unknown!r} is not one of {', '.join(names)}")
    return {name: found.get(name, {}) for name in names}
