"""Arguments that travel to other processes: only what JSON can say."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

from antinfer.errors import UsageError


def plain(value: Any, at: str) -> Any:
    """Return `value` as JSON values; tuples become lists.

    Raises:
        UsageError: Something in it has no JSON form; the message names it by its path from `at`, such as ``args.weights``.
    """
    if value is None or isinstance(value, (bool, str)) or (isinstance(value, int) and type(value) is int):
        return value
    if type(value) is float:
        if math.isfinite(value):
            return value
        raise UsageError(f"{at}: {value!r} has no JSON form", hint="Use None or a string and translate it in your code.")
    if isinstance(value, (list, tuple)):
        return [plain(item, f"{at}.{index}") for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise UsageError(f"{at}: the key {key!r} is a {type(key).__name__}; only text can be a key")
        return {key: plain(item, f"{at}.{key}") for key, item in value.items()}
    hint = "Pass what it is made from (a path, a name, numbers) and build it in the class's constructor."
    if isinstance(value, os.PathLike):
        hint = f"Pass a string: {os.fspath(value)!r}."
    elif hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        hint = "Pass a plain number: value.item()."
    raise UsageError(
        f"{at}: a {type(value).__name__} cannot be sent to a worker; only text, numbers, lists and dicts of them can", hint=hint
    )
