"""Predictors on GPUs: what fits is placed, what does not is told, and the machine's GPUs are found without a driver."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antinfer.errors import UserError
from antinfer.launchers.gpus import environment, gpu_room, visible_gpus
from antinfer.spec.devices import Gpus, GpuWish, Lot, check, deal, ends, place
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
        # Spread over both devices, the last one would find no room.
        (2, [(0.5, "auto"), (0.5, "auto"), (0.4, "auto"), (0.3, "auto"), (0.3, "auto")], [["0"], ["0"], ["1"], ["1"], ["1"]]),
        # Neither does the fullest device always lead to the end.
        (2, [(0.4, 2), (0.3, 4)], [["0", "1"], ["0", "0", "1", "1"]]),
        (3, [(2.0, "auto"), (0.5, "auto"), (0.5, "auto")], [["0,1"], ["2"], ["2"]]),
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
        (1, [(1e-9, "auto")], ["'s0'", "num_gpus must be 0, a share of one GPU from 0.01 to 1", "1e-09"]),
        (2, [(0.26, 7)], ["1.82 GPUs", "a predictor's share must lie on one GPU"]),
        (8, [(0.26, 30)], ["7.8 GPUs"]),
        (1, [(0.5, 10**9)], ["5e+08 GPUs"]),
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


def fits(shares: Sequence[float], taken: tuple[float, ...]) -> bool:
    """Tell whether there is a way at all to put these on the devices, by looking at every one."""
    if not shares:
        return True
    count = max(1, round(shares[0]))
    return any(
        all(taken[at] + shares[0] / count <= 1 + 1e-6 for at in chosen)
        and fits(shares[1:], tuple(amount + (at in chosen) * shares[0] / count for at, amount in enumerate(taken)))
        for chosen in combinations(range(len(taken)), count)
    )


@given(
    st.integers(1, 3),
    st.lists(
        st.tuples(
            st.integers(1, 20).map(lambda part: part / 20) | st.sampled_from([1 / 3, 1.0, 2.0]), st.sampled_from(["auto", 1, 2, (1, 3)])
        ),
        max_size=4,
    ),
)
def test_all_that_fits_is_placed_and_nothing_else(count: int, wishes: list[tuple[float, Any]]) -> None:
    fewest = {"auto": 1, (1, 3): 1}
    shares = [share for share, concurrency in wishes for _ in range(fewest.get(concurrency, concurrency))]
    if fits(sorted(shares, reverse=True), (0.0,) * count):
        stages = placed(count, *wishes)
        assert all(len(stage) >= fewest.get(concurrency, concurrency) for stage, (_, concurrency) in zip(stages, wishes, strict=True))
    else:
        with pytest.raises(UserError):
            placed(count, *wishes)


def test_as_many_predictors_as_there_may_be_on_a_device() -> None:
    assert [len(stage) for stage in placed(2, (0.01, "auto"))] == [200]


@pytest.mark.parametrize(
    ("gpus", "workers", "expected"),
    [
        ("01", 1, ["01"]),
        ("01", 2, ["0", "1"]),
        ("01234", 2, ["01", "234"]),
        ("01234567", 3, ["01", "234", "567"]),
        ("0", 2, ["0/2", "0/2"]),
        ("01", 3, ["0/2", "1", "0/2"]),
    ],
)
def test_gpus_are_dealt_to_the_workers_of_a_machine(gpus: str, workers: int, expected: list[str]) -> None:
    lots = deal(gpus, workers)
    assert ["".join(lot.gpus) + (f"/{round(1 / lot.room)}" if lot.room < 1 else "") for lot in lots] == expected


@given(st.integers(1, 9), st.integers(1, 30))
def test_workers_have_all_gpus_and_no_part_of_one_twice(count: int, workers: int) -> None:
    gpus = [str(number) for number in range(count)]
    lots = deal(gpus, workers)
    dealt: Counter[str] = Counter()
    for lot in lots:
        dealt.update(dict.fromkeys(lot.gpus, lot.room))  # type: ignore[arg-type]
    assert dealt == pytest.approx(dict.fromkeys(gpus, 1.0))
    sizes = [len(lot.gpus) * lot.room for lot in lots]
    assert len(lots) == workers and min(sizes) == sizes[0]


def test_a_worker_fills_no_more_than_its_part_of_a_device() -> None:
    gpus = Gpus(["0"], 0.5)
    assert place([GpuWish("s", 0.2, "auto")], gpus) == [[("0",), ("0",)]]
    assert not gpus.has_room(0.2)


def stage(num_gpus: float, concurrency: int | str = "auto", name: str = "P") -> StageSpec:
    return StageSpec.model_validate({"kind": "predict", "target": "m:P", "name": name, "num_gpus": num_gpus, "concurrency": concurrency})


@pytest.mark.parametrize(
    ("gpus", "workers", "stages"),
    [
        ("0", 1, [stage(1)]),
        ("01", 2, [stage(1)]),
        ("0", 2, [stage(0.5)]),
        ("0", 3, [stage(1 / 3)]),
        ("01", 4, [stage(0.25, 2)]),
        ("", 4, [stage(0)]),
    ],
)
def test_what_fits_for_each_worker_is_let_through(gpus: str, workers: int, stages: list[StageSpec]) -> None:
    check(stages, gpus, workers)


@pytest.mark.parametrize(
    ("gpus", "workers", "stages", "words"),
    [
        ("0", 2, [stage(1)], ["2 workers ask for 1 GPU (P: 1 x 1) each", "1 GPU (0), 0.5 for each", "Run 1 at most", "--workers"]),
        ("012", 2, [stage(0.5, 3)], ["1.5 GPUs (P: 3 x 0.5) each", "3 GPUs (0, 1, 2), 1 for each", "Run 1 at most"]),
        ("01234567", 5, [stage(2)], ["5 workers", "8 GPUs", "1 for each", "Run 4 at most"]),
        ("0", 5, [stage(0.25), stage(0.05, name="Q")], ["0.3 GPUs (P: 1 x 0.25, Q: 1 x 0.05)", "0.2 for each", "Run 3 at most"]),
        ("0123", 2, [stage(0.6, 3)], ["1.8 GPUs", "2 for each; a predictor's share must lie on one GPU", "Run 1 at most"]),
        ("0", 10**5, [stage(0.01)], ["100000 workers", "Run 100 at most"]),
        # Fewer workers would be no help.
        ("0", 2, [stage(2)], ["the stages ask for 2 GPUs (P: 1 x 2), and this machine has 1 GPU"]),
        ("", 2, [stage(1)], ["no GPU"]),
    ],
)
def test_workers_that_do_not_fit_together_are_told(gpus: str, workers: int, stages: list[StageSpec], words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        check(stages, gpus, workers)
    for word in words:
        assert word in str(caught.value) + caught.value.hint


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


@pytest.mark.parametrize("lot", [Lot(("2", "0")), Lot(("MIG-1",), 1 / 3)])
def test_what_a_worker_was_dealt_is_what_it_finds(lot: Lot) -> None:
    environ = environment(lot)
    assert Lot(visible_gpus(environ), gpu_room(environ)) == lot
    assert gpu_room({}) == 1


@pytest.mark.parametrize(
    ("num_gpus", "gpus", "threads"),
    [(0.5, [], 2), (0.5, ["0"], 2), (1, ["0", "1"], 4), (1, list("01234567"), 16), (0, list("01234567"), 2)],
)
def test_each_gpu_that_is_used_has_two_readers(num_gpus: float, gpus: list[str], threads: int) -> None:
    assert ends([stage(num_gpus)], gpus) == threads
