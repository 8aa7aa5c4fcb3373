"""Which worker gets which GPUs, and which predictor: shares are packed, whole devices spread, what does not fit is told at once. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from antinfer.errors import UserError
from antinfer.spec.normal import all_stages

if TYPE_CHECKING:
    from antinfer.spec.stages import StageSpec

_NOTHING: Final = 1e-6
"""Shares such as 1/3 do not add up to 1 exactly."""
_LEAST_SHARE: Final = 0.01
"""A process that uses a device takes hundreds of megabytes of it before any model is loaded."""
_MOST_TRIED: Final = 10_000
"""Ways to fill the devices that are looked at before the search for one that holds all predictors is given up."""

Devices = tuple[str, ...]
"""What one predictor may use, in the words of ``CUDA_VISIBLE_DEVICES``; empty: no GPU."""


def ends(stages: Iterable[StageSpec], gpus: Sequence[str]) -> int:
    """Return how many threads read for `stages`, and how many write: what need not be decoded takes two of them to feed one GPU."""
    return 2 * max(1, len(gpus) if any(stage.num_gpus for stage in all_stages(stages)) else 0)


@dataclass(frozen=True, slots=True)
class GpuWish:
    """What one stage asks for."""

    stage: str
    num_gpus: float
    """For each predictor: a share of a device up to 1, or a whole number of devices."""
    concurrency: int | tuple[int, int] | Literal["auto"]
    """Predictors; of a range the fewest are placed."""


@dataclass(frozen=True, slots=True)
class Lot:
    """What one of several workers on one machine gets."""

    gpus: Devices
    room: float = 1.0
    """How much of each of them; the rest is for other workers."""


class Gpus:
    """The devices of one worker, and how much of each is taken."""

    def __init__(self, names: Sequence[str], room: float = 1.0) -> None:
        """`room` is how much of each device may be taken."""
        self.names = tuple(names)
        self.room = room
        self._taken = dict.fromkeys(self.names, 0.0)

    def take(self, num_gpus: float, *, spread: bool = False) -> Devices | None:
        """Return devices for one more predictor; None when there is no room for it.

        Those of which most is taken come first, so that whole devices stay whole; with `spread` the emptiest come first.
        """
        if num_gpus <= 0:
            return ()
        count, share = _parts(num_gpus)
        fitting = self._fitting(share, self._taken)
        if len(fitting) < count:
            return None
        chosen = sorted(fitting, key=lambda name: self._taken[name] if spread else -self._taken[name])[:count]
        for name in chosen:
            self._taken[name] += share
        return tuple(name for name in self.names if name in chosen)

    def take_all(self, wanted: Sequence[float]) -> list[Devices] | None:
        """Return devices for a predictor of each of these `num_gpus`, the largest first; None, and nothing is taken, when no way is found.

        The fullest devices are tried first, then others: any way is as good, if only all find their place.
        """
        ways: list[tuple[dict[str, float], tuple[Devices, ...]]] = [(self._taken, ())]
        seen: set[tuple[int, tuple[float, ...]]] = set()
        while ways and len(seen) < _MOST_TRIED:
            taken, chosen = ways.pop()
            if len(chosen) == len(wanted):
                self._taken = taken
                return list(chosen)
            count, share = _parts(wanted[len(chosen)])
            fitting = sorted(self._fitting(share, taken), key=taken.__getitem__)
            # Several devices for one predictor are whole ones, so any of them side by side will do.
            for at in range(len(fitting) - count + 1):
                devices = tuple(name for name in self.names if name in fitting[at : at + count])
                after = taken | {name: taken[name] + share for name in devices}
                # Which device is how full does not matter for those that come.
                state = (len(chosen), tuple(sorted(round(amount, 9) for amount in after.values())))
                if state not in seen:
                    seen.add(state)
                    ways.append((after, (*chosen, devices)))
        return None

    def has_room(self, num_gpus: float) -> bool:
        """Tell whether `take` would find devices for one more predictor."""
        count, share = _parts(num_gpus)
        return num_gpus <= 0 or len(self._fitting(share, self._taken)) >= count

    def _fitting(self, share: float, taken: Mapping[str, float]) -> list[str]:
        return [name for name in self.names if taken[name] + share <= self.room + _NOTHING]

    def give_back(self, devices: Sequence[str], num_gpus: float) -> None:
        """Take note that a predictor has gone."""
        for name in devices:
            self._taken[name] = max(0.0, self._taken[name] - num_gpus / len(devices))

    @property
    def size(self) -> float:
        """How many devices these are, taken together."""
        return len(self.names) * self.room


def _parts(num_gpus: float) -> tuple[int, float]:
    """Return of how many devices a predictor gets a share, and how large that is."""
    count = max(1, round(num_gpus))
    return count, num_gpus / count


def share_fault(num_gpus: float) -> str:
    """Return what a predictor's `num_gpus` must be instead, for people; empty: it is right."""
    if _LEAST_SHARE <= num_gpus <= 1 or float(num_gpus).is_integer():
        return ""
    return f"must be 0, a share of one GPU from {_LEAST_SHARE:g} to 1, or a whole number of GPUs, not {num_gpus:g}"


def deal(gpus: Sequence[str], workers: int) -> list[Lot]:
    """Return what each of so many workers on one machine gets of its `gpus`, of which there is one at least.

    Whole devices as long as there is one for each worker. With fewer, a device is divided evenly among the workers on it. Nobody gets less
    than the first one.
    """
    count = len(gpus)
    if count >= workers:
        return [Lot(tuple(gpus[number * count // workers : (number + 1) * count // workers])) for number in range(workers)]
    on_each = [-(-(workers - at) // count) for at in range(count)]
    return [Lot((gpus[number % count],), 1 / on_each[number % count]) for number in range(workers)]


def place(wishes: Sequence[GpuWish], gpus: Gpus) -> list[list[Devices]]:
    """Return for each stage the devices of each of its predictors, which are taken from `gpus`.

    Stages with a number of predictors come first, the most demanding ones before all. `auto` takes what is left: one predictor after the
    other, each stage in turn, the emptiest device first; without a GPU (``num_gpus: 0``) one predictor. Where those that must be there do
    not fit in this way, they are packed as closely as it takes.

    Raises UserError when a share is neither a part of one device nor a whole number of devices, when there is no GPU, and when the sum of
    what is asked for does not fit.
    """
    for wish in wishes:
        _check(wish, gpus)
    placed = _first(wishes, gpus)
    if placed is None:
        raise _too_much(wishes, gpus)
    waiting = [index for index in range(len(wishes)) if wishes[index].concurrency == "auto" and wishes[index].num_gpus > 0]
    while waiting:
        for index in list(waiting):
            devices = gpus.take(wishes[index].num_gpus, spread=True)
            if devices is None:
                waiting.remove(index)
            else:
                placed[index].append(devices)
    return placed


def check(stages: Iterable[StageSpec], gpus: Sequence[str], workers: int = 1) -> None:
    """Raise UserError when the predictors that `stages` begin with, branches included, do not fit on `gpus`; see `place`.

    They must fit as many times as there are workers, each with what `deal` gives to it.
    """
    wishes = [GpuWish(stage.name, stage.num_gpus, stage.concurrency) for stage in all_stages(stages) if stage.num_gpus]
    place(wishes, Gpus(gpus))
    if wishes and not _fits(wishes, gpus, workers):
        raise _too_many(wishes, gpus, workers)


def _fits(wishes: Sequence[GpuWish], gpus: Sequence[str], workers: int) -> bool:
    return _first(wishes, _least(gpus, workers)) is not None


def _least(gpus: Sequence[str], workers: int) -> Gpus:
    """Return what the worker that gets least has."""
    lot = deal(gpus, workers)[0]
    return Gpus(lot.gpus, lot.room)


def _first(wishes: Sequence[GpuWish], gpus: Gpus) -> list[list[Devices]] | None:
    """Return the devices of the fewest predictors of each stage; None, and nothing is taken, when they do not fit."""
    if _total(wishes) > gpus.size + _NOTHING * len(gpus.names):
        return None
    placed: list[list[Devices]] = [[] if wish.num_gpus else [()] * _fewest(wish) for wish in wishes]
    order = sorted((index for index, wish in enumerate(wishes) if wish.num_gpus), key=lambda index: -wishes[index].num_gpus)
    first = [index for index in order for _ in range(_fewest(wishes[index]))]
    chosen = _in_turn([wishes[index] for index in first], gpus) or gpus.take_all([wishes[index].num_gpus for index in first])
    if chosen is None:
        return None
    for index, devices in zip(first, chosen, strict=True):
        placed[index].append(devices)
    return placed


def _in_turn(wishes: Sequence[GpuWish], gpus: Gpus) -> list[Devices] | None:
    """Return devices for one predictor of each wish; None, and nothing is taken, as soon as one finds no room."""
    chosen: list[Devices] = []
    for wish in wishes:
        devices = gpus.take(wish.num_gpus, spread=wish.concurrency == "auto" or wish.num_gpus >= 1)
        if devices is None:
            for taken, earlier in zip(chosen, wishes, strict=False):
                gpus.give_back(taken, earlier.num_gpus)
            return None
        chosen.append(devices)
    return chosen


def _fewest(wish: GpuWish) -> int:
    if wish.concurrency == "auto":
        return 1
    return wish.concurrency if isinstance(wish.concurrency, int) else wish.concurrency[0]


def _check(wish: GpuWish, gpus: Gpus) -> None:
    if fault := share_fault(wish.num_gpus):
        raise UserError(f"stage {wish.stage!r}: num_gpus {fault}")
    if wish.num_gpus and not gpus.names:
        raise UserError(
            f"stage {wish.stage!r} asks for num_gpus: {wish.num_gpus:g}, and this machine has no GPU that may be used",
            hint="Run it on a machine with a GPU (see nvidia-smi and CUDA_VISIBLE_DEVICES), or set num_gpus: 0.",
        )


def _too_much(wishes: Sequence[GpuWish], gpus: Gpus) -> UserError:
    return UserError(
        f"the stages ask for {_asked(wishes)}, and this machine has {_have(gpus.names)}{_cut(wishes, gpus.size)}",
        hint="Lower num_gpus or concurrency of a stage.",
    )


def _too_many(wishes: Sequence[GpuWish], gpus: Sequence[str], workers: int) -> UserError:
    share = _least(gpus, workers).size
    no_more_than = min(workers - 1, int(len(gpus) / _total(wishes) + _NOTHING))
    most = next((number for number in range(no_more_than, 0, -1) if _fits(wishes, gpus, number)), 1)
    return UserError(
        f"{workers} workers ask for {_asked(wishes)} each, and this machine has {_have(gpus)}, {share:.3g} for each{_cut(wishes, share)}",
        hint=f"Run {most} at most (--workers, or workers.max of the job), of which one uses all GPUs, or lower num_gpus or concurrency.",
    )


def _total(wishes: Sequence[GpuWish]) -> float:
    return sum(_fewest(wish) * wish.num_gpus for wish in wishes)


def _asked(wishes: Sequence[GpuWish]) -> str:
    parts = ", ".join(f"{wish.stage}: {_fewest(wish)} x {wish.num_gpus:g}" for wish in wishes if wish.num_gpus)
    return f"{_total(wishes):g} GPU{'s' * (_total(wishes) != 1)} ({parts})"


def _have(names: Sequence[str]) -> str:
    return f"{len(names)} GPU{'s' * (len(names) != 1)} ({', '.join(names)})"


def _cut(wishes: Sequence[GpuWish], size: float) -> str:
    return "; a predictor's share must lie on one GPU" if _total(wishes) <= size + _NOTHING else ""
