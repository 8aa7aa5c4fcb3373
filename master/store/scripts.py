"""The Lua scripts that run inside the store's server."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True, slots=True)
class Script:
    """One script and the name by which the server remembers it."""

    text: str
    sha: str


@cache
def script(name: str) -> Script:
    """Load ``lua/<name>.lua`` from the package. Raises FileNotFoundError for a name that is not there."""
    text = resources.files("antinfer.master.store.lua").joinpath(f"{name}.lua").read_text(encoding="utf-8")
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
