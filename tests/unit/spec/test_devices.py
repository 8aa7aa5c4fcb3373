"""Predictors on GPUs: what fits is placed, what does not is told, and the machine's GPUs are found without a driver."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antinfer.errors import UserError
from antinfer.launchers.gpus import visible_gpus
from antinfer.spec.devices import Gpus, GpuWish, ends, place
from antinfer.spec.schema import StageSpec


def placed(count: int, *wishes: tuple[float, Any]) -> list[list[tuple[str, ...]]]:
    names = [str(number) for number in range(count)]
    return place([GpuWish(f"s{number}", *wish) for number, wish in enumerate(wishes)], Gpus(names))


@pytest.mark.parametrize(
    ("count", "wishes", "expected"),
    [
        (1, [(1.0, "auto")], [["0"]]),
        (2, [(1.0, "auto")], [["0", "1"]]),
        (2, [(0.5, "auto")], [["0", "1", "0", "1"]]),
        (1, [(0.4, "auto")], [["0", "0"]]),
        (2, [(1.0, 1), (0.5, 2)], [["0"], ["1", "1"]]),
        # The half comes second although it is named first, and finds a device for itself.
        (2, [(0.5, 1), (1.0, 1)], [["1"], ["0"]]),
        (1, [(0.5, "auto"), (0.5, "auto")], [["0"], ["0"]]),
        (3, [(1 / 3, 3), (2.0, 1)], [["2", "2", "2"], ["0,1"]]),
        (2, [(0.5, (2, 4)), (0.25, "auto")], [["0", "0"], ["1", "1", "1", "1"]]),
        (4, [(2.0, "auto")], [["0,1", "2,3"]]),
        (0, [(0.0, 3), (0.0, "auto")], [["", "", ""], [""]]),
    ],
)
def test_places(count: int, wishes: list[tuple[float, Any]], expected: list[list[str]]) -> None:
    assert [[",".join(devices) for devices in stage] for stage in placed(count, *wishes)] == expected


@pytest.mark.parametrize(
    ("count", "wishes", "words"),
    [
        (0, [(1.0, "auto")], ["'s0'", "num_gpus: 1", "no GPU"]),
        (1, [(0.6, 2)], ["1.2 GPUs", "s0: 2 x 0.6", "1 GPU (0)"]),
        (2, [(1.0, 2), (0.5, 1)], ["2.5 GPUs", "s0: 2 x 1, s1: 1 x 0.5", "2 GPUs (0, 1)"]),
        (2, [(0.6, 3)], ["1.8 GPUs", "a predictor's share must lie on one GPU"]),
        (2, [(1.5, 1)], ["1.5", "'s0'"]),
        (1, [(2.0, "auto")], ["2 GPUs"]),
        (1, [(1.0, (2, 4))], ["s0: 2 x 1"]),
    ],
)
def test_what_does_not_fit_is_told(count: int, wishes: list[tuple[float, Any]], words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        placed(count, *wishes)
    for word in words:
        assert word in str(caught.value) + caught.value.hint


@given(
    st.integers(1, 8),
    st.lists(st.tuples(st.sampled_from([0.1, 0.25, 1 / 3, 0.5, 1.0, 2.0]), st.one_of(st.just("auto"), st.integers(1, 4))), max_size=4),
)
def test_no_device_is_ever_given_away_twice(count: int, wishes: list[tuple[float, Any]]) -> None:
    try:
        stages = placed(count, *wishes)
    except UserError:
        return
    taken: Counter[str] = Counter()
    for (share, concurrency), predictors in zip(wishes, stages, strict=True):
        assert len(predictors) == concurrency if concurrency != "auto" else predictors
        for devices in predictors:
            assert len(set(devices)) == len(devices) == max(1, share)
            for name in devices:
                taken[name] += share / len(devices)  # type: ignore[assignment]
    assert all(sum_ <= 1 + 1e-5 for sum_ in taken.values())
    if any(concurrency == "auto" and share <= 1 for share, concurrency in wishes):
        least = min(share for share, concurrency in wishes if concurrency == "auto")
        assert all(taken[str(number)] + least > 1 for number in range(count)) or least > 1


def test_more_predictors_come_and_go() -> None:
    gpus = Gpus(["0", "1"])
    place([GpuWish("s", 0.5, 1)], gpus)
    more = [gpus.take(0.5, spread=True) for _ in range(4)]
    assert more == [("1",), ("0",), ("1",), None]
    gpus.give_back(("0",), 0.5)
    assert gpus.take(1.0) is None and gpus.take(0.5) == ("0",)


@pytest.mark.parametrize(
    ("environ", "files", "expected"),
    [
        ({}, ["nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"], ("0", "1")),
        ({}, ["nvidia3"], ("0",)),
        ({"NVIDIA_VISIBLE_DEVICES": "void"}, ["nvidia0"], ()),
        ({"CUDA_VISIBLE_DEVICES": ""}, ["nvidia0"], ()),
        ({"CUDA_VISIBLE_DEVICES": "2, 0"}, ["nvidia0"], ("2", "0")),
        ({"CUDA_VISIBLE_DEVICES": "1,-1,0"}, [], ("1",)),
        ({"CUDA_VISIBLE_DEVICES": "GPU-8932f937,MIG-1"}, [], ("GPU-8932f937", "MIG-1")),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, [], ()),
    ],
)
def test_gpus_are_found(tmp_path: Path, environ: dict[str, str], files: list[str], expected: tuple[str, ...]) -> None:
    for name in files:
        (tmp_path / name).touch()
    assert visible_gpus(environ, tmp_path) == expected


@pytest.mark.parametrize(
    ("num_gpus", "gpus", "threads"),
    [(0.5, [], 2), (0.5, ["0"], 2), (1, ["0", "1"], 4), (1, list("01234567"), 16), (0, list("01234567"), 2)],
)
def test_each_gpu_that_is_used_has_two_readers(num_gpus: float, gpus: list[str], threads: int) -> None:
    stage = StageSpec.model_validate({"kind": "predict", "target": "m:P", "name": "P", "num_gpus": num_gpus})
    assert ends([stage], gpus) == threads
