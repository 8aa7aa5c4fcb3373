"""How each kind of fault is done to the processes of a job, and what must be seen before it counts as got over."""

from __future__ import annotations

import signal
from typing import Any, Final

from antinfer.storage.jobs import open_output
from antinfer.testing.chaos import links, places, pointed
from antinfer.testing.chaos.blows import PROGRAMS, Blow, pick_worker, rules_again
from antinfer.testing.chaos.crew import Crew
from antinfer.testing.chaos.hits import Armed, Hit, commits, has_no_leases, publishes
from antinfer.testing.chaos.processes import NotInTime, signal_all, state_of, wait_until
from antinfer.testing.chaos.schedule import Strike
from antinfer.testing.chaos.watching import Sample

_GONE_S: Final = 5.0
"""A killed process that is still there after this time is stuck in the kernel."""
_ORPHAN_S: Final = 5.0
_FENCED_S: Final = 20.0
"""A master that wakes up after another has taken its place sees that within this time, however busy the machine is."""
_LOST_SHARE: Final = 0.2
"""Of the end of the store's file, when it is corrupted."""
_EMBEDDED: Final = "unixsocket"


def strike(crew: Crew, what: Strike, now: Sample) -> Hit | Armed | None:
    """Do it; None when there is nobody now whom it could meet."""
    return BLOWS[what.rule.kind, what.rule.target](crew, what, now)


# -- workers -----------------------------------------------------------------------------------------------------------------------------


def _kill_worker(crew: Crew, what: Strike, now: Sample) -> Hit | None:
    member = pick_worker(crew, what, now)
    if member is None:
        return None
    member.doomed = True
    met = signal_all(member.process.everything(), signal.SIGKILL)
    status = member.process.wait(_GONE_S)
    crew.replace_later()
    return Hit(member.name, {"pids": met, "status": status, "left": _left(met)}, [has_no_leases(member.name)])


def _kill_agent(crew: Crew, what: Strike, now: Sample) -> Hit | None:
    member = pick_worker(crew, what, now)
    if member is None:
        return None
    member.doomed = True
    below = member.process.find()
    member.process.kill()
    crew.replace_later()

    def look_for_orphans() -> None:
        if left := [pid for pid in below if state_of(pid) not in "ZX"]:
            crew.surprises.append(f"processes {left} of {member.name} outlived their agent by {_ORPHAN_S:g} s")

    crew.later(_ORPHAN_S, look_for_orphans)
    return Hit(member.name, {"pids": [member.process.pid], "status": member.process.status}, [has_no_leases(member.name)])


def _term_worker(crew: Crew, what: Strike, now: Sample) -> Hit | None:
    member = pick_worker(crew, what, now)
    if member is None:
        return None
    member.doomed = True
    proof: dict[str, Any] = {"pids": [member.process.pid], "signal": "SIGTERM"}
    member.process.send(signal.SIGTERM)
    crew.replace_later()
    grace_s = what.rule.grace_s

    def force() -> None:
        killed = signal_all(member.process.everything(), signal.SIGKILL) if member.process.is_alive else []
        proof.update(forced=bool(killed), status=member.process.wait(_GONE_S))

    if grace_s is not None:
        crew.later(grace_s, force)
    return Hit(member.name, proof, [has_no_leases(member.name)])


def _kill_part(crew: Crew, what: Strike, now: Sample) -> Hit | None:
    member = pick_worker(crew, what, now)
    words = PROGRAMS[what.rule.target]
    found = [] if member is None else member.process.find(words)
    if member is None or not found:
        return None
    victim = found[what.pick(len(found))]
    has_committed = commits(member.name, now)
    signal_all([victim], signal.SIGKILL)
    _wait_for_end(victim)

    def is_back(sample: Sample) -> bool:
        return bool(set(member.process.find(words)) - set(found)) or not member.process.is_alive

    def commits_again(sample: Sample) -> bool:
        return has_committed(sample) or (sample.rules and not member.process.is_alive)

    return Hit(member.name, {"pids": [victim], "state": state_of(victim)}, [is_back, commits_again])


def _stop_worker(crew: Crew, what: Strike, now: Sample) -> Hit | None:
    member = pick_worker(crew, what, now)
    if member is None:
        return None
    has_committed = commits(member.name, now)
    pids = member.process.everything()
    stopped = crew.freeze(member, pids, what.rule.lasts_s)

    def goes_on(sample: Sample) -> bool:
        return sample.rules and (not sample.leases_of(member.name) or (not member.frozen and has_committed(sample)))

    return Hit(member.name, {"pids": pids, "stopped": stopped}, [goes_on])


def _stop_predictor(crew: Crew, what: Strike, now: Sample) -> Hit | None:
    member = pick_worker(crew, what, now)
    found = [] if member is None else member.process.find(PROGRAMS["predictor"])
    if member is None or not found:
        return None
    victim = found[what.pick(len(found))]
    has_committed = commits(member.name, now)
    stopped = crew.freeze(member, [victim], what.rule.lasts_s)

    def commits_again(sample: Sample) -> bool:
        return sample.rules and not member.frozen and (has_committed(sample) or not member.process.is_alive)

    return Hit(member.name, {"pids": [victim], "stopped": stopped}, [commits_again])


# -- masters -----------------------------------------------------------------------------------------------------------------------------


def _kill_master(crew: Crew, what: Strike, now: Sample) -> Hit | None:
    if not crew.master_listens:
        return None
    member = crew.master
    member.doomed = True
    member.process.kill()
    return Hit(member.name, {"pids": [member.process.pid], "status": member.process.status}, rules_again(crew, now))


def _term_master(crew: Crew, what: Strike, now: Sample) -> Hit | None:
    if not crew.master_listens:
        return None
    member = crew.master
    member.doomed = True
    member.process.send(signal.SIGTERM)
    proof: dict[str, Any] = {"pids": [member.process.pid], "signal": "SIGTERM"}

    def has_left(sample: Sample) -> bool:
        proof["status"] = member.process.status
        return proof["status"] is not None

    return Hit(member.name, proof, [has_left, *rules_again(crew, now)])


def _stop_master(crew: Crew, what: Strike, now: Sample) -> Hit | None:
    if not crew.master_listens:
        return None
    member = crew.master
    stopped = crew.freeze(member, [member.process.pid], what.rule.lasts_s)
    return Hit(member.name, {"pids": [member.process.pid], "stopped": stopped}, rules_again(crew, now))


def _usurp_master(crew: Crew, what: Strike, now: Sample) -> Hit | None:
    if not crew.master_listens or not now.rules or any(member.process.is_alive for member in crew.masters[:-1]):
        return None
    first = crew.master
    first.doomed = True
    stopped = crew.freeze(first, [first.process.pid], what.rule.lasts_s)
    crew.start_master(crew.other_master)
    proof: dict[str, Any] = {"pids": [first.process.pid], "stopped": stopped}

    def look(*, was_taken: bool) -> None:
        proof["status"] = first.process.status
        if not first.process.is_alive or first is crew.master:
            return
        # The other one may have died before it came to claim the job: then the first rules on, and rightly.
        is_taken = f"process {first.process.pid} " not in _ruler(crew)
        if is_taken and was_taken:
            crew.surprises.append(f"{first.name} woke up after another had taken its place, and was still there {_FENCED_S:g} s later")
            first.process.kill()
        else:
            crew.later(_FENCED_S, lambda: look(was_taken=is_taken))

    crew.later(what.rule.lasts_s, lambda: look(was_taken=False))
    return Hit(first.name, proof, rules_again(crew, now))


def _ruler(crew: Crew) -> str:
    """Return who has claimed the last reign, in its own words."""
    claim = open_output(crew.cluster.spec).highest_epoch()
    return "" if claim is None else claim.owner


# -- the store ---------------------------------------------------------------------------------------------------------------------------


def _kill_store(crew: Crew, what: Strike, now: Sample) -> Hit | None:
    if crew.store is None:
        return _kill_embedded(crew, now)
    if not crew.store.is_alive or crew.store_frozen:
        return None
    pid = crew.store.pid
    status = crew.store.kill()
    crew.later(crew.plan.restart_s, crew.store.start)
    return Hit("store", {"pids": [pid], "status": status}, publishes(now))


def _kill_embedded(crew: Crew, now: Sample) -> Hit | None:
    found = crew.master.process.find(_EMBEDDED) if crew.master_listens else []
    if not found:
        return None
    signal_all(found, signal.SIGKILL)
    _wait_for_end(found[0])
    return Hit("store", {"pids": found, "state": state_of(found[0])}, publishes(now))


def _wipe_store(crew: Crew, what: Strike, now: Sample) -> Hit | None:
    if crew.store is None or not crew.store.is_alive or crew.store_frozen:
        return None
    pid = crew.store.pid
    status = crew.store.kill()
    lost = crew.store.forget()
    crew.later(crew.plan.restart_s, crew.store.start)
    return Hit("store", {"pids": [pid], "status": status, "bytes_lost": lost}, publishes(now))


def _corrupt_store(crew: Crew, what: Strike, now: Sample) -> Hit | None:
    if crew.store is None or not crew.store.is_alive or crew.store_frozen:
        return None
    pid = crew.store.pid
    status = crew.store.kill()
    lost = crew.store.cut(_LOST_SHARE)
    crew.later(crew.plan.restart_s, crew.store.start)
    return Hit("store", {"pids": [pid], "status": status, "bytes_lost": lost}, publishes(now))


def _stop_store(crew: Crew, what: Strike, now: Sample) -> Hit | None:
    store = crew.store
    if store is None or store.pid is None or not store.is_alive or crew.store_frozen:
        return None
    pid = store.pid
    store.send(signal.SIGSTOP)
    wait_until(lambda: state_of(pid) == "T", "the store is stopped", seconds=_GONE_S)
    crew.store_frozen = True

    def wake() -> None:
        store.send(signal.SIGCONT)
        crew.store_frozen = False

    crew.later(what.rule.lasts_s, wake)
    return Hit("store", {"pids": [pid], "stopped": 1}, publishes(now))


def _wait_for_end(pid: int) -> None:
    wait_until(lambda: state_of(pid) in "ZX", f"process {pid} is gone", seconds=_GONE_S, pause_s=0.002)


def _left(pids: list[int]) -> list[int]:
    """Wait until these killed processes are gone; return those that are not in time."""
    try:
        wait_until(lambda: all(state_of(pid) in "ZX" for pid in pids), "all are gone", seconds=_GONE_S, pause_s=0.002)
    except NotInTime:
        return [pid for pid in pids if state_of(pid) not in "ZX"]
    return []


BLOWS: Final[dict[tuple[str, str], Blow]] = {
    **pointed.BLOWS,
    **links.BLOWS,
    **places.BLOWS,
    ("kill", "worker"): _kill_worker,
    ("kill", "agent"): _kill_agent,
    ("kill", "host"): _kill_part,
    ("kill", "predictor"): _kill_part,
    ("kill", "master"): _kill_master,
    ("kill", "store"): _kill_store,
    ("term", "worker"): _term_worker,
    ("term", "master"): _term_master,
    **{
        (kind, target): blow
        for kind in ("stop", "pause")
        for target, blow in (("worker", _stop_worker), ("predictor", _stop_predictor), ("master", _stop_master), ("store", _stop_store))
    },
    ("wipe", "store"): _wipe_store,
    ("corrupt", "store"): _corrupt_store,
    ("usurp", "master"): _usurp_master,
}
