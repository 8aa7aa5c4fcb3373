"""What can happen to a job under test: every kind of fault, whom it can meet, and what it takes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

from antinfer.faultpoints import POINTS

MESSAGES: Final = ("worker.send", "worker.receive", "master.send", "master.receive")
"""Fault points at which a message may be lost or come twice."""

_WORKS: Final = ("worker", "agent", "host", "predictor", "master", "store")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault; in a plan, ``<name>: <target>`` beside its other keys."""

    name: str
    targets: tuple[str, ...]
    meaning: str
    points: Literal["none", "any", "messages"] = "none"
    """Fault points that may be its target as well: then it meets the process that comes to the point next."""
    lasts: Literal["no", "must", "may"] = "no"
    """Whether it is undone after a while, which takes ``for``."""
    takes: tuple[str, ...] = ()
    """Its other keys: ``grace``, ``error``, ``by``, ``how``."""
    needs_server: tuple[str, ...] = ()
    """Targets for which the store must be a server of its own: the embedded one belongs to the master."""

    @property
    def all_targets(self) -> tuple[str, ...]:
        more = {"none": (), "any": tuple(POINTS), "messages": MESSAGES}[self.points]
        return (*self.targets, *more)


_STOP: Final = Kind(
    "stop",
    ("worker", "predictor", "master", "store"),
    "SIGSTOP, and SIGCONT after `for`",
    points="any",
    lasts="must",
    needs_server=("store",),
)
KINDS: Final = {
    kind.name: kind
    for kind in (
        Kind("kill", _WORKS, "SIGKILL; a worker goes with all its processes at once", points="any"),
        Kind("term", ("worker", "master"), "SIGTERM: a worker drains; after `grace` it is killed with all its processes", takes=("grace",)),
        _STOP,
        replace(_STOP, name="pause"),
        Kind("wipe", ("store",), "kill the store, delete all that it wrote, start it again", needs_server=("store",)),
        Kind(
            "corrupt",
            ("store", "staged", "events"),
            "damage the store's file and start it on that, a part whose host has just died, or a chunk of the event log",
            needs_server=("store",),
        ),
        Kind(
            "usurp",
            ("master",),
            "stop the master, start another in its place, wake it up after `for`",
            lasts="must",
            needs_server=("master",),
        ),
        Kind("oom", ("predictor", "host"), "SIGKILL in the middle of user code, as the kernel does when memory is short"),
        Kind("crash", ("predictor", "host"), "a segmentation fault in the middle of user code", points="any"),
        Kind("hang", ("predictor",), "user code never returns", points="any"),
        Kind("poison", ("row",), "one row of the input fails whenever it is computed: it raises, or as `how` says", takes=("how",)),
        Kind(
            "partition",
            ("worker", "store", "output", "input"),
            "nothing passes: worker and masters, masters and store, a worker or the master and the output, a worker and the input",
            lasts="must",
            needs_server=("store",),
        ),
        Kind(
            "delay",
            ("worker", "store"),
            "all that passes there comes later by `by`; at a point, the process waits",
            points="any",
            lasts="must",
            takes=("by",),
            needs_server=("store",),
        ),
        Kind("drop", (), "a message is lost", points="messages"),
        Kind("duplicate", (), "a message comes twice", points="messages"),
        Kind("fail", (), "the operating system reports `error`, once or during `for`", points="any", lasts="may", takes=("error",)),
        Kind("fill", ("disk",), "there is no space in the output place for a while", lasts="must"),
    )
}
NETWORK: Final = ("partition", "delay")
"""Kinds that need somebody between the two who speak."""
POINTED: Final = frozenset({"oom", "crash", "hang", "poison", "fill"})
"""Kinds that are done at fault points although their targets do not name one."""
POINTED_TARGETS: Final = frozenset({"output", "input", "staged"})
"""Targets that are met at fault points."""
