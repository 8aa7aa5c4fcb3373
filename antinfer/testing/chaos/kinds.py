"""What can happen to a job under test: every kind of fault, whom it can meet, and what it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault; in a plan, ``<name>: <target>`` beside its other keys."""

    name: str
    targets: tuple[str, ...]
    meaning: str
    lasts: bool = False
    """It is undone after a while: needs ``for``."""
    has_grace: bool = False
    """May have ``grace``: the time between the notice and the end by force."""
    needs_server: tuple[str, ...] = ()
    """Targets for which the store must be a server of its own: the embedded one belongs to the master."""


KINDS: Final = {
    kind.name: kind
    for kind in (
        Kind("kill", ("worker", "agent", "host", "predictor", "master", "store"), "SIGKILL; a worker goes with all its processes at once"),
        Kind("term", ("worker", "master"), "SIGTERM: a worker drains, and after `grace` is killed with all its processes", has_grace=True),
        Kind("stop", ("worker", "predictor", "master", "store"), "SIGSTOP, and SIGCONT after `for`", lasts=True, needs_server=("store",)),
        Kind("wipe", ("store",), "kill the store, delete all that it wrote, start it again", needs_server=("store",)),
        Kind(
            "usurp",
            ("master",),
            "stop the master, start another in its place, wake it up after `for`",
            lasts=True,
            needs_server=("master",),
        ),
    )
}
