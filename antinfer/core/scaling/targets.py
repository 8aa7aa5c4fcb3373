"""How many workers there should be: what a deadline takes, or what there is, within a budget and what the owner of the cluster allows.

What is wanted changes for a reason only, never with the noise of a measurement: a deadline leaves a band in which nothing happens, fewer
workers must have been enough for a while, and growth into free capacity stops while a single worker waits for a place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import ceil, inf

from antinfer.core.scaling.actions import Tell, Topic
from antinfer.core.scaling.outlook import MS_PER_HOUR, Outlook, least_that
from antinfer.core.scaling.tally import Tally
from antinfer.core.scaling.values import Allowance, Desired, Observed

_TOLD_ABOVE = 1.02
_TOLD_BELOW = 0.98
"""An estimate is told when it is that much over what is allowed, and taken back when it is that much under it."""
_TOLD_PART = 0.01
"""Nor is it told that a job ends late by less than this part of its time: shortly before its end every death of a worker would be told."""

_LESS_LOST = -2.0
_MORE_LOST = 1.0
"""Standard errors of what preemption takes: a few deaths are no rate yet. A job is told to be late when it would be with so much less lost,
for a word taken back is worse than one that comes later; it gives workers back when fewer are enough with so much more."""

_WORTH_STARTING = 2.0
_WORTH_WAITING = 1.0
"""Times as long as its start takes that a worker must have something to do, to be started, and to go on waiting for a place."""
_TURN_MS = 5_000
"""Time that may pass until it is seen that somebody has to leave."""
_NO_ALLOWANCE = Allowance()


@dataclass(frozen=True, slots=True)
class Aim:
    """What was decided last, and what has to be remembered for the next decision. Times in ms."""

    total: int = 0
    """Workers there should be."""
    wanted: int = 0
    """Workers that the deadline or the free capacity asks for, before anything takes some of them back; 0: nothing was decided yet."""
    step: int = 1
    """By how many workers a job grows next that takes what there is."""
    grew_at: int | None = None
    fewer_since: int | None = None
    """Since when fewer workers would have been enough."""
    fewer: int = 0
    """The most of these that would have been."""
    worth: int | None = None
    """Workers that the rest of the job is worth, when that are fewer."""
    ebb: int | None = None
    """Workers that had something to do when others were given back for want of it; None: there are rows to lease."""
    affordable: int | None = None
    """Workers that could leave in order before the budget is used up, at the least so far: who was given back for that does not come again
    because leaving took less than it might have."""
    allowance: Allowance = _NO_ALLOWANCE
    """The budget that `affordable` is about."""
    is_late: bool = False
    is_dear: bool = False
    """What was told about deadline and budget."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What keeps a job from having as many workers as it may, apart from capacity."""

    ceiling: int | None = None
    """What is left after others were given back; None: none were."""
    used_ms: Mapping[str, int] | None = None
    """Time that workers of each class have been paid for."""


@dataclass(frozen=True, slots=True)
class Decision:
    """How many workers, and what to say about it."""

    aim: Aim
    tells: tuple[Tell, ...]
    is_spent: bool = False
    """The budget is used up."""


def decide(desired: Desired, observed: Observed, tally: Tally, last: Aim, limits: Limits, now: int) -> Decision:
    """Decide how many workers there should be.

    Args:
        desired: what is wanted.
        observed: what is seen.
        tally: the workers of `observed`, and those that were asked for.
        last: what was decided last.
        limits: what has been used up and given back.
        now: in ms.
    """
    outlook = Outlook(desired, observed, tally)
    # A new controller goes on with the workers that it finds: those of the one before were wanted, too.
    first = last if last.wanted else replace(last, wanted=max(desired.least, tally.placed, 1))
    bounded = replace(first, wanted=min(max(first.wanted, desired.least, 1), desired.most))
    if desired.deadline_at is not None:
        cautious = Outlook(desired, observed, tally, _MORE_LOST)
        aim = _by_deadline(desired, outlook, cautious, bounded, desired.deadline_at, now)
    else:
        aim = _by_capacity(desired, tally, bounded, now)
    cap = desired.most if limits.ceiling is None else min(desired.most, max(limits.ceiling, desired.least))
    total = min(aim.wanted, cap)
    aim = replace(aim, affordable=_affordable(desired, outlook, tally, aim, limits), allowance=desired.allowance)
    affordable = min(_startable(desired, outlook, tally, last, limits), desired.most if aim.affordable is None else aim.affordable)
    total = min(total, affordable)
    aim = replace(aim, worth=_worth(outlook, tally, aim, total))
    if aim.worth is not None:
        total = min(total, aim.worth)
    aim = replace(aim, ebb=_ebb(desired, observed, tally, aim, now))
    if aim.ebb is not None:
        total = min(total, aim.ebb)
    hopeful = Outlook(desired, observed, tally, _LESS_LOST)
    late, late_text = _lateness(desired, outlook, hopeful, tally, last.is_late, min(cap, affordable), now)
    dear, dear_text = _dearness(desired, outlook, limits, max(total, 1), last.is_dear)
    tells = (Tell(Topic.DEADLINE, late_text), Tell(Topic.BUDGET, dear_text))
    return Decision(replace(aim, total=total, is_late=late, is_dear=dear), tells, is_spent=aim.affordable == 0)


# -- policies -----------------------------------------------------------------------------------------------------------------------
def _by_deadline(desired: Desired, outlook: Outlook, cautious: Outlook, aim: Aim, deadline_at: int, now: int) -> Aim:
    """Return as many workers as let the job end shortly before its deadline; of fewer `cautious` says whether they are enough."""
    if not outlook.is_known:
        return aim
    policy, whole = desired.policy, deadline_at - desired.started_at

    def left_until(part: float) -> float:
        return desired.started_at + part * whole - now

    goal, latest = left_until(policy.aim), left_until(policy.late)
    is_near = goal < 2 * outlook.startup_ms
    if is_near:
        # Too late to steer: a few more workers if they still help, and none is given back any more.
        goal = latest = left_until(1.0)

    def enough(by: Outlook) -> int:
        least = least_that(lambda total: by.finish_ms(total) <= goal, max(desired.least, 1), desired.most)
        return desired.most if least is None else least

    current = outlook.finish_ms(aim.wanted)
    if current > latest:
        return replace(aim, wanted=max(aim.wanted, enough(outlook)), fewer_since=None, fewer=0)
    fewer = enough(cautious)
    if is_near or fewer >= aim.wanted or current >= left_until(policy.early):
        return replace(aim, fewer_since=None, fewer=0)
    since, fewer = (now, fewer) if aim.fewer_since is None else (aim.fewer_since, max(aim.fewer, fewer))
    # Near the end for a shorter time: nothing makes up for what too many have done meanwhile.
    if now - since < min(policy.settle_ms, policy.settle_part * goal):
        return replace(aim, fewer_since=since, fewer=fewer)
    return replace(aim, wanted=fewer, fewer_since=None, fewer=0)


def _by_capacity(desired: Desired, tally: Tally, aim: Aim, now: int) -> Aim:
    """Return as many workers as find a place, and a few that wait for one.

    Where one class finds none the job does not grow by the other alone: the share holds for whatever number of workers there is.
    """
    policy = desired.policy
    waiting = tally.waiting()
    if waiting:
        overdue = sum(now - worker.since > policy.surplus_ms for worker in waiting)
        probes = max(1, int(policy.probes * tally.placed))
        surplus = max(0, overdue - probes)
        return replace(aim, wanted=max(desired.least, 1, min(aim.wanted, tally.active - surplus)) if surplus else aim.wanted, step=1)
    has_grown = aim.grew_at is not None and now - aim.grew_at < policy.grow_ms
    if has_grown or tally.active < aim.wanted or any(each.pending for each in tally.by_class.values()):
        return aim
    return replace(aim, wanted=min(desired.most, aim.wanted + aim.step), step=min(aim.step * 4, desired.most), grew_at=now)


# -- what takes some of them back ---------------------------------------------------------------------------------------------------
def _worth(outlook: Outlook, tally: Tally, aim: Aim, total: int) -> int | None:
    """Return how many of `total` workers are worth it: one that starts when the others are about to be done computes nothing.

    None: all are. As the end comes nearer it only sinks, unless there is clearly more to do than there was.
    """
    if not outlook.is_known:
        return None
    held = aim.worth
    if held is not None and outlook.worthwhile(2 * _WORTH_STARTING) > held:
        held = None
    cap = max(tally.active, outlook.worthwhile(_WORTH_STARTING))
    if tally.active > (keep := outlook.worthwhile(_WORTH_WAITING)):
        cap = max(tally.active - len(tally.waiting()), keep)
    if held is not None:
        cap = min(cap, held)
    return cap if cap < total else held


def _ebb(desired: Desired, observed: Observed, tally: Tally, aim: Aim, now: int) -> int | None:
    """Return how many workers have something to do: near the end those that have not are given back, below the least number too.

    Nobody comes again for that, until rows are there that nobody holds.
    """
    if observed.unleased_rows != 0 or observed.remaining_rows is None:
        return None
    patience = desired.policy.idle_ms
    idle = sum(worker.idle_since is not None and now - worker.idle_since >= patience for worker in tally.all("ready"))
    if not idle:
        return aim.ebb
    busy = max(1, tally.placed - idle)
    return busy if aim.ebb is None else min(busy, aim.ebb)


def _affordable(desired: Desired, outlook: Outlook, tally: Tally, aim: Aim, limits: Limits) -> int | None:
    """Return how many workers can leave in order before the budget is used up; None: there is no budget."""
    hours = (desired.policy.drain_ms + _TURN_MS) / MS_PER_HOUR
    known = aim.affordable if aim.allowance == desired.allowance else None
    for limit, unit in _budgets(desired):
        leaving = sum(len(each.leaving) * unit(name) for name, each in tally.by_class.items())
        left = limit - _used(limits, unit) - leaving * hours
        most = outlook.most_within(left / hours, unit)
        known = most if known is None else min(known, most)
    return known


def _startable(desired: Desired, outlook: Outlook, tally: Tally, last: Aim, limits: Limits) -> int:
    """Return how many workers there may be, at least one, so that little of the budget goes into starting the new ones.

    The death of a few is no reason to want fewer: as many as there were may start up to twice as dear.
    """
    # While one class makes room for the other there are more of them than there should be, and that is no reason to want more.
    there = min(tally.placed, last.total) if last.total else tally.placed

    def within(share: float) -> int:
        hours, most = outlook.startup_ms / MS_PER_HOUR, desired.most
        for limit, unit in _budgets(desired):
            start = share * (limit - _used(limits, unit)) / hours
            most = min(most, outlook.most_within(start + outlook.cost_per_hour(there, unit), unit))
        return most

    share = desired.policy.startup_share
    return max(within(share), min(within(2 * share), last.total), 1)


def _budgets(desired: Desired) -> list[tuple[float, Callable[[str], float]]]:
    """Return each limit with what one worker of a class uses up of it in an hour."""
    allowance = desired.allowance
    budgets: list[tuple[float, Callable[[str], float]]] = []
    if allowance.gpu_hours is not None:
        budgets.append((allowance.gpu_hours, lambda name: desired.of(name).gpus))
    if allowance.money is not None:
        budgets.append((allowance.money, lambda name: desired.of(name).price))
    return budgets


def _used(limits: Limits, unit: Callable[[str], float]) -> float:
    return sum(used_ms / MS_PER_HOUR * unit(name) for name, used_ms in (limits.used_ms or {}).items())


# -- what is said -------------------------------------------------------------------------------------------------------------------
def _lateness(desired: Desired, outlook: Outlook, hopeful: Outlook, tally: Tally, was_late: bool, most: int, now: int) -> tuple[bool, str]:
    """Tell whether the deadline cannot be kept even as `hopeful` sees it, and say why."""
    if desired.deadline_at is None or not outlook.is_known:
        return False, ""
    left = desired.deadline_at - now
    slack = _TOLD_PART * (desired.deadline_at - desired.started_at)
    limit = left * _TOLD_BELOW if was_late else left * _TOLD_ABOVE + slack
    waiting = [worker for worker in tally.waiting() if now - worker.since >= desired.policy.pending_ms]
    if waiting and hopeful.finish_ms(tally.placed) > limit:
        after, where = _after(outlook.finish_ms(tally.placed) - left), f"with the {tally.placed} workers that have a place"
        return True, f"the job will end {after} its deadline {where}; {len(waiting)} more wait for one"
    if not most or hopeful.finish_ms(most) > limit:
        after = _after(outlook.finish_ms(most) - left if most else inf)
        return True, f"the job will end {after} its deadline even with the {most} workers that it may have"
    return False, ""


def _dearness(desired: Desired, outlook: Outlook, limits: Limits, total: int, was_dear: bool) -> tuple[bool, str]:
    """Tell whether the budget does not last until the end, and say so."""
    if not outlook.is_known:
        return False, ""
    names = [name for name, limit in (("gpu_hours", desired.allowance.gpu_hours), ("money", desired.allowance.money)) if limit is not None]
    for name, (limit, unit) in zip(names, _budgets(desired), strict=True):
        used = _used(limits, unit)
        whole = used + outlook.cost_of_rest(total, unit)
        if whole > limit * (_TOLD_BELOW if was_dear else _TOLD_ABOVE):
            return True, f"the job needs about {_two_digits(whole)} of budget.{name}, which allows {limit:g}; {_two_digits(used)} are used"
    return False, ""


def _after(late_ms: float) -> str:
    if late_ms == inf:
        return "long after"
    minutes = max(1, ceil(max(late_ms, 0.0) / 60_000))
    return f"about {_two_digits(minutes)} min after" if late_ms > 0 else "at, or just after,"


def _two_digits(number: float) -> str:
    """Write `number` with two digits that count, so that what is told does not change all the time."""
    return f"{float(f'{number:.2g}'):g}"
