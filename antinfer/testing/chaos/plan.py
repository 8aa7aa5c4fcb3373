"""Fault plans: what shall happen to a job, and when; read from YAML, or made in Python."""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Literal, get_args

from antinfer.errors import UsageError
from antinfer.faultpoints import POINTS
from antinfer.spec.forms import parse_duration
from antinfer.spec.near import did_you_mean
from antinfer.spec.yamlfile import Lines, read_yaml
from antinfer.testing.chaos.kinds import KINDS

Spread = Literal["poisson", "scattered", "steady"]
Store = Literal["embedded", "server"]
Strictness = Literal["exact", "close", "off"]
Failing = Literal["raise", "crash", "hang"]
Launcher = Literal["local", "kubernetes"]
_PERCENT: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*%\s*")
_FOLDER: Final = "plans"


@dataclass(frozen=True, slots=True)
class Moment:
    """A time (seconds since the first lease) or a share of the job's rows that are published: one of the two."""

    seconds: float | None = None
    share: float | None = None

    def __str__(self) -> str:
        return f"{self.share:.0%} of the rows" if self.share is not None else f"{self.seconds:g} s"


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a plan: a kind of fault, and when it strikes."""

    kind: str
    target: str
    at: tuple[Moment, ...] = ()
    """Moments at which it strikes."""
    every: Moment | None = None
    """Mean distance of two strikes, in time or in rows."""
    spread: Spread = "poisson"
    """``poisson``: the distances are exponential; ``steady``: all alike; ``scattered``: one strike anywhere in each such stretch."""
    begin: Moment = Moment(share=0.0)
    end: Moment = Moment(share=0.9)
    """No strike of `every` before `begin` and after `end`."""
    times: int | None = None
    """Most strikes of `every`; None: as many as come."""
    lasts_s: float = 0.0
    """How long it lasts."""
    grace_s: float | None = None
    """Seconds from the notice to the end by force; None: no force."""
    error: str = ""
    """Name of the operating system's error, such as ``EIO``."""
    by_s: float = 0.2
    """How much later everything is."""
    how: Failing = "raise"
    """How a poisonous row fails."""
    launcher: Launcher | None = None
    """Where alone it strikes; None: everywhere."""

    @property
    def is_pointed(self) -> bool:
        """Its target is a fault point."""
        return self.target in POINTS

    def __str__(self) -> str:
        return f"{self.kind} {self.target}"


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """What shall happen to a job, and how it is run meanwhile."""

    name: str
    rules: tuple[Rule, ...] = ()
    about: str = ""
    workers: int = 4
    replace_s: float | None = 0.0
    """Seconds until somebody takes the place of a worker that died or was told to leave; None: nobody ever does."""
    restart_s: float = 0.2
    """Seconds until a master or a store that died is started again."""
    store: Store = "embedded"
    """``embedded``: the master's own; ``server``: one beside it, reached by URL."""
    seconds: float = 30.0
    """The job is slowed down so that it takes about so long when nothing happens; 0: it runs as fast as it can."""
    ttl_s: float | None = None
    """Silence after which a worker counts as gone; None: as in production."""
    at_least: int = 1
    """Faults that must have met the job for the run to prove anything."""
    job: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the job to override, by dotted path."""
    values: Strictness = "close"
    """How alike the values must be to those of the undisturbed run: models may give other last digits with other batches."""
    accumulators: Strictness = "close"

    def under(self, launcher: Launcher) -> FaultPlan:
        """Return what there is of it under this launcher."""
        return replace(self, rules=tuple(rule for rule in self.rules if rule.launcher in (None, launcher)))

    @property
    def notice_s(self) -> float | None:
        """Shortest time from a notice to the end by force that a worker may get; None: nobody is forced."""
        graces = (rule.grace_s for rule in self.rules if (rule.kind, rule.target) == ("term", "worker"))
        return min((grace_s for grace_s in graces if grace_s is not None), default=None)


def ready_made() -> dict[str, Path]:
    """Return the plans that come with the package: name -> file."""
    folder = Path(str(files("antinfer.testing.chaos"))) / _FOLDER
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_plan(name: str | Path) -> FaultPlan:
    """Return the ready-made plan of this name, or the one in this file.

    Raises:
        UsageError: There is no such plan, or a key or value in it is not allowed; says file and line.
    """
    known = ready_made()
    path = known.get(str(name)) or Path(name)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"no fault plan {name}: {error.strerror}{did_you_mean(str(name), known)}",
            hint=f"Give a YAML file, or one of: {', '.join(known)}.",
        ) from error
    raw, lines = read_yaml(text, str(path))
    return parse_plan(raw, lines, path.stem)


def parse_plan(raw: Any, lines: Lines, name: str) -> FaultPlan:
    """Read the value of a plan file. Raises `UsageError` as `load_plan`."""
    reader = _Reader(lines)
    if not isinstance(raw, Mapping):
        raise UsageError(f"{lines.file}: a fault plan must be a mapping with the key faults")
    values = dict(raw)
    rules = values.pop("faults", [])
    if not isinstance(rules, list):
        raise reader.wrong(("faults",), "must be a list")
    given: dict[str, Any] = {"name": name, "rules": tuple(reader.rule(index, rule) for index, rule in enumerate(rules))}
    for key, value in values.items():
        if key not in _PLAN_KEYS:
            raise reader.wrong((key,), f"unknown key; allowed: faults, {', '.join(_PLAN_KEYS)}{did_you_mean(key, _PLAN_KEYS)}")
        attribute, read = _PLAN_KEYS[key]
        given[attribute] = reader.value((key,), read, value)
    plan = FaultPlan(**given)
    for index, rule in enumerate(plan.rules):
        if plan.store == "embedded" and rule.target in KINDS[rule.kind].needs_server:
            raise reader.wrong(("faults", index), f"{rule} needs `store: server`: the embedded store belongs to the master")
    return plan


class _Reader:
    """Reads the parts of a plan, and says where something is wrong."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines

    def wrong(self, at: tuple[str | int, ...], problem: str) -> UsageError:
        return UsageError(
            f"{self._lines.place(at)}: {'.'.join(map(str, at))}: {problem}", hint="docs/chaos.md describes every key of a fault plan."
        )

    def value(self, at: tuple[str | int, ...], read: Any, value: Any) -> Any:
        try:
            return read(value)
        except (ValueError, TypeError) as error:
            raise self.wrong(at, str(error)) from None

    def rule(self, index: int, raw: Any) -> Rule:
        at = ("faults", index)
        found = [name for name in KINDS if isinstance(raw, Mapping) and name in raw]
        if len(found) != 1:
            raise self.wrong(at, f"a fault is exactly one of {', '.join(KINDS)}")
        kind = KINDS[found[0]]
        target = raw[kind.name]
        if target not in kind.all_targets:
            allowed = [*kind.targets, *(["a fault point"] if kind.points != "none" else [])]
            near = did_you_mean(str(target), kind.all_targets)
            raise self.wrong((*at, kind.name), f"must be one of {', '.join(allowed)}, not {target!r}{near}")
        given: dict[str, Any] = {"kind": kind.name, "target": target}
        for key, value in raw.items():
            if key == kind.name:
                continue
            if key not in _RULE_KEYS:
                raise self.wrong((*at, key), f"unknown key; allowed: {', '.join(_RULE_KEYS)}{did_you_mean(key, _RULE_KEYS)}")
            attribute, read = _RULE_KEYS[key]
            given[attribute] = self.value((*at, key), read, value)
        rule = Rule(**given)
        if (rule.every is None) == (not rule.at):
            raise self.wrong(at, "says when it strikes by exactly one of at and every")
        if kind.lasts != "may" and (kind.lasts == "must") != bool(rule.lasts_s):
            raise self.wrong(at, f"{kind.name} {'needs' if kind.lasts == 'must' else 'takes no'} for")
        for key in ("grace", "error", "by", "how"):
            if key in raw and key not in kind.takes:
                raise self.wrong((*at, key), f"{kind.name} takes no {key}")
        if kind.name == "fail" and not rule.error:
            raise self.wrong(at, "fail needs error, such as EIO")
        return rule


def _moment(value: Any) -> Moment:
    if isinstance(value, str) and (found := _PERCENT.fullmatch(value)):
        share = float(found[1]) / 100
        if share > 1:
            raise ValueError(f"must be at most 100%, not {value}")
        return Moment(share=share)
    if value == 0 and not isinstance(value, bool):
        return Moment(seconds=0.0)
    try:
        return Moment(seconds=parse_duration(value))
    except ValueError:
        raise ValueError(f"must be a duration such as 10s, or a share of the rows such as 30%, not {value!r}") from None


def _distance(value: Any) -> Moment:
    found = _moment(value)
    if not found.seconds and not found.share:
        raise ValueError(f"must be a duration or a share above zero, not {value!r}")
    return found


def _moments(value: Any) -> tuple[Moment, ...]:
    return tuple(_moment(each) for each in (value if isinstance(value, list) else [value]))


def _duration_or_zero(value: Any) -> float:
    return 0.0 if value == 0 and not isinstance(value, bool) else parse_duration(value)


def _duration_or_never(value: Any) -> float | None:
    return None if value == "never" else _duration_or_zero(value)


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"must be a whole number of at least 1, not {value!r}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be text, not {value!r}")
    return value


def _errno(value: Any) -> str:
    if not isinstance(value, str) or not value.startswith("E") or not hasattr(errno, value):
        raise ValueError(f"must be the name of an error of the operating system, such as ENOSPC or EIO, not {value!r}")
    return value


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"must be a mapping of dotted paths to values, not {value!r}")
    return value


def _one_of(words: Any) -> Any:
    allowed = get_args(words)

    def read(value: Any) -> Any:
        if value not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}, not {value!r}{did_you_mean(str(value), allowed)}")
        return value

    return read


_RULE_KEYS: Final[dict[str, tuple[str, Any]]] = {
    "at": ("at", _moments),
    "every": ("every", _distance),
    "spread": ("spread", _one_of(Spread)),
    "from": ("begin", _moment),
    "until": ("end", _moment),
    "times": ("times", _count),
    "for": ("lasts_s", parse_duration),
    "grace": ("grace_s", _duration_or_zero),
    "error": ("error", _errno),
    "by": ("by_s", parse_duration),
    "how": ("how", _one_of(Failing)),
    "launcher": ("launcher", _one_of(Launcher)),
}
_PLAN_KEYS: Final[dict[str, tuple[str, Any]]] = {
    "about": ("about", _text),
    "workers": ("workers", _count),
    "replace": ("replace_s", _duration_or_never),
    "restart": ("restart_s", _duration_or_zero),
    "store": ("store", _one_of(Store)),
    "seconds": ("seconds", _duration_or_zero),
    "ttl": ("ttl_s", parse_duration),
    "at_least": ("at_least", _count),
    "job": ("job", _mapping),
    "values": ("values", _one_of(Strictness)),
    "accumulators": ("accumulators", _one_of(Strictness)),
}
