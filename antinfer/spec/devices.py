"""Which predictor gets which GPU: shares of devices are packed, whole devices are spread, and what does not fit is told at once. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from antinfer.errors import UserError
from antinfer.spec.normal import all_stages

if TYPE_CHECKING:
    from antinfer.spec.stages import StageSpec

_NOTHING = 1e-6
"""Shares such as 1/3 do not add up to 1 exactly."""

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


class Gpus:
    """The devices of one machine, and how much of each is taken."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._taken = dict.fromkeys(self.names, 0.0)

    def take(self, num_gpus: float, *, spread: bool = False) -> Devices | None:
        """Return devices for one more predictor; None when there is no room for it.

        Those of which most is taken come first, so that whole devices stay whole; with `spread` the emptiest come first.
        """
        if num_gpus <= 0:
            return ()
        count, share = _parts(num_gpus)
        fitting = self._fitting(share)
        if len(fitting) < count:
            return None
        chosen = sorted(fitting, key=lambda name: self._taken[name] if spread else -self._taken[name])[:count]
        for name in chosen:
            self._taken[name] += share
        return tuple(name for name in self.names if name in chosen)

    def has_room(self, num_gpus: float) -> bool:
        """Tell whether `take` would find devices for one more predictor."""
        count, share = _parts(num_gpus)
        return num_gpus <= 0 or len(self._fitting(share)) >= count

    def _fitting(self, share: float) -> list[str]:
        return [name for name in self.names if self._taken[name] + share <= 1 + _NOTHING]

    def give_back(self, devices: Sequence[str], num_gpus: float) -> None:
        """Take note that a predictor has gone."""
        for name in devices:
            self._taken[name] = max(0.0, self._taken[name] - num_gpus / len(devices))

    @property
    def free(self) -> float:
        """How much of all devices together is not taken."""
        return sum(1 - taken for taken in self._taken.values())


def _parts(num_gpus: float) -> tuple[int, float]:
    """Return of how many devices a predictor gets a share, and how large that is."""
    count = max(1, round(num_gpus))
    return count, num_gpus / count


def place(wishes: Sequence[GpuWish], gpus: Gpus) -> list[list[Devices]]:
    """Return for each stage the devices of each of its predictors, which are taken from `gpus`.

    Stages with a number of predictors come first, the most demanding ones before all. `auto` takes what is left: one predictor after the
    other, each stage in turn, the emptiest device first; without a GPU (``num_gpus: 0``) one predictor.

    Raises UserError when a share is neither a part of one device nor a whole number of devices, when there is no GPU, and when the sum of
    what is asked for does not fit.
    """
    for wish in wishes:
        _check(wish, gpus)
    placed: list[list[Devices]] = [[] for _ in wishes]
    fixed = sorted(range(len(wishes)), key=lambda index: -wishes[index].num_gpus)
    for index in fixed:
        wish = wishes[index]
        for _ in range(_fewest(wish)):
            devices = gpus.take(wish.num_gpus, spread=wish.concurrency == "auto" or wish.num_gpus >= 1)
            if devices is None:
                raise _too_much(wishes, gpus)
            placed[index].append(devices)
    waiting = [index for index in range(len(wishes)) if wishes[index].concurrency == "auto" and wishes[index].num_gpus > 0]
    while waiting:
        for index in list(waiting):
            devices = gpus.take(wishes[index].num_gpus, spread=True)
            if devices is None:
                waiting.remove(index)
            else:
                placed[index].append(devices)
    return placed


def check(stages: Iterable[StageSpec], gpus: Sequence[str]) -> None:
    """Raise UserError when the predictors that `stages` begin with, branches included, do not fit on `gpus`; see `place`."""
    place([GpuWish(stage.name, stage.num_gpus, stage.concurrency) for stage in all_stages(stages) if stage.num_gpus], Gpus(gpus))


def _fewest(wish: GpuWish) -> int:
    if wish.concurrency == "auto":
        return 1
    return wish.concurrency if isinstance(wish.concurrency, int) else wish.concurrency[0]


def _check(wish: GpuWish, gpus: Gpus) -> None:
    if wish.num_gpus <= 0:
        return
    if wish.num_gpus > 1 and wish.num_gpus != int(wish.num_gpus):
        raise UserError(
            f"stage {wish.stage!r}: num_gpus is {wish.num_gpus:g}",
            hint="Give a share of one GPU (up to 1), or a whole number of GPUs.",
        )
    if not gpus.names:
        raise UserError(
            f"stage {wish.stage!r} asks for num_gpus: {wish.num_gpus:g}, and this machine has no GPU that may be used",
            hint="Run it on a machine with a GPU (see nvidia-smi and CUDA_VISIBLE_DEVICES), or set num_gpus: 0.",
        )


def _too_much(wishes: Sequence[GpuWish], gpus: Gpus) -> UserError:
    asking = [wish for wish in wishes if wish.num_gpus > 0]
    total = sum(_fewest(wish) * wish.num_gpus for wish in asking)
    parts = ", ".join(f"{wish.stage}: {_fewest(wish)} x {wish.num_gpus:g}" for wish in asking)
    have = f"{len(gpus.names)} GPU{'s' * (len(gpus.names) != 1)} ({', '.join(gpus.names)})"
    cut = "; a predictor's share must lie on one GPU" if total <= len(gpus.names) + _NOTHING else ""
    return UserError(
        f"the stages ask for {total:g} GPUs ({parts}), and this machine has {have}{cut}",
        hint="Lower num_gpus or concurrency of a stage.",
    )
