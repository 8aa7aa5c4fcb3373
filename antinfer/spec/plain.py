"""Values that travel to other processes: only what JSON can say."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any


def plain(value: Any, at: str = "") -> Any:
    """Return `value` as JSON values; tuples become lists.

    Raises:
        ValueError: Something in it has no JSON form; the message names it by its path from `at` and says the way out.
    """
    if value is None or type(value) in (bool, str, int):
        return value
    if type(value) is float:
        if math.isfinite(value):
            return value
        raise ValueError(f"{at}: {value!r} has no JSON form; use null or a string and translate it in your code")
    if isinstance(value, (list, tuple)):
        return [plain(item, _below(at, index)) for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            if type(key) is not str:
                raise ValueError(f"{_below(at, key)}: this key is a {type(key).__name__}; only text can be a key")
        return {key: plain(item, _below(at, key)) for key, item in value.items()}
    way_out = "pass what it is made from (a path, a name, numbers) and build it in your code"
    if isinstance(value, os.PathLike):
        way_out = f"pass the string {os.fspath(value)!r}"
    elif hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        way_out = f"pass the plain number {value.item()!r}"
    raise ValueError(
        f"{at}: a {type(value).__name__} cannot be sent to a worker, only text, numbers, lists and mappings of them; {way_out}"
    )


def _below(at: str, key: object) -> str:
    return f"{at}.{key}" if at else f"{key}"
