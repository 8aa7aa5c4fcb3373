"""Faults of the network: between a worker and the masters, and between the masters and the store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from antinfer.testing.chaos.blows import Blow, pick_worker
from antinfer.testing.chaos.crew import Crew, Member
from antinfer.testing.chaos.happenings import Condition
from antinfer.testing.chaos.hits import Hit, commits, publishes
from antinfer.testing.chaos.proxy import Proxy
from antinfer.testing.chaos.schedule import Strike
from antinfer.testing.chaos.watching import Sample


def _partition(crew: Crew, what: Strike, now: Sample) -> Hit | None:
    return _between(crew, what, now, Proxy.hold, Proxy.release)


def _delay(crew: Crew, what: Strike, now: Sample) -> Hit | None:
    return _between(crew, what, now, lambda link: link.delay(what.rule.by_s), lambda link: link.delay(0.0))


def _between(crew: Crew, what: Strike, now: Sample, begin: Callable[[Proxy], object], end: Callable[[Proxy], object]) -> Hit | None:
    member: Member | None = None
    if what.rule.target == "worker":
        member = pick_worker(crew, what, now)
        links = [] if member is None else crew.links.pop(member.name, [])
    else:
        links = crew.links.pop("store", [])
    if not links:
        return None  # nobody is at work, or there is such a fault already
    victim = "store" if member is None else member.name
    before = _carried(links)
    proof: dict[str, Any] = {"connections": sum(link.open_connections for link in links), "bytes_before": before}
    over: list[bool] = []
    for link in links:
        begin(link)

    def undo() -> None:
        proof["bytes_after"] = _carried(links)
        for link in links:
            end(link)
        crew.links[victim] = links
        over.append(True)

    crew.later(what.rule.lasts_s, undo)
    return Hit(victim, proof, publishes(now) if member is None else [_works_on(member, now, over)])


def _works_on(member: Member, now: Sample, over: list[bool]) -> Condition:
    has_committed = commits(member.name, now)
    return lambda sample: sample.rules and (not sample.leases_of(member.name) or (bool(over) and has_committed(sample)))


def _carried(links: list[Proxy]) -> int:
    return sum(link.carried("up") + link.carried("down") for link in links)


BLOWS: Final[dict[tuple[str, str], Blow]] = {
    (kind, target): blow for kind, blow in (("partition", _partition), ("delay", _delay)) for target in ("worker", "store")
}
