"""The tuner on a model of a pipeline: it comes near the best there is from any start, then rests, and never passes a guard."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from antinfer.worker.tuning.degrees import Tuner
from antinfer.worker.tuning.values import Decision, Machine, StageSignal
from tests.unit.worker.tuner_model import GIB, Model, Stage

BUSY = StageSignal("s", "processes", 1, 1, 1, 4, rows=100, batches=10, busy_seconds=1.0, queued_batches=3.0, is_last=True)


def test_the_slowest_stage_gets_what_it_needs() -> None:
    model = Model([Stage("decode", 0.01, most=16), Stage("model", 0.001, serves=1, most=1), Stage("write", 0.0001)], cpus=16)
    model.run(60)
    assert model.degrees["decode"] >= 9 and model.degrees["model"] == 1 and model.degrees["write"] == 1
    assert model.rate() >= 0.9 * model.best()


def test_growth_is_quick_where_it_pays() -> None:
    model = Model([Stage("decode", 0.01, start=4, most=16), Stage("model", 0.0001, serves=1, most=1)], cpus=16)
    model.run(12)
    assert model.degrees["decode"] == 16


def test_growth_leaps_to_where_another_stage_is_the_slowest() -> None:
    model = Model([Stage("decode", 0.01, start=2, most=16), Stage("model", 0.00125, serves=1, most=1)], cpus=16)
    model.run(5)
    assert [(decision.before, decision.degree) for _, decision in model.changes] == [(2, 8)]
    assert model.rate() == pytest.approx(model.best())


def test_growth_leaps_no_further_than_cores_are_free() -> None:
    model = Model([Stage("decode", 0.01, start=2, most=16), Stage("model", 0.0001, serves=1, most=1)], cpus=8)
    model.run(5)
    assert [(decision.before, decision.degree) for _, decision in model.changes] == [(2, 8)]


@pytest.mark.parametrize(("cores_a_copy", "to"), [(0.0, 8), (0.25, 8), (1.0, 6), (1.5, 5), (4.0, 5)])
def test_growth_fills_the_free_cores_by_what_a_copy_takes_of_them(cores_a_copy: float, to: int) -> None:
    tuner = Tuner()
    signal = replace(BUSY, degree=4, ready=4, most=16, busy_seconds=4.0, cpu_seconds=4 * cores_a_copy)
    decisions: list[Decision] = []
    for second in range(10):
        decisions = decisions or tuner.step(float(second), [signal], Machine(8.0, 5.9))
    assert [decision.degree for decision in decisions] == [to]


@pytest.mark.parametrize("copies", [15, 63, 127])
def test_many_copies_that_are_all_needed_stay(copies: int) -> None:
    model = Model([Stage("decode", 0.002, start=copies, most=copies, loads=2.0), Stage("model", 1e-6, serves=1.0)], cpus=copies + 1.0)
    model.run(600)
    assert [decision.degree < decision.before for _, decision in model.changes] == [True, False], "it was put to the test once"
    assert model.degrees["decode"] == copies


def test_two_stages_that_are_equally_slow_grow_together() -> None:
    model = Model([Stage("detect", 0.01, waits=True), Stage("embed", 0.01, waits=True)])
    model.run(120)
    assert model.rate() >= 0.9 * model.best()


@pytest.mark.parametrize("serves", [1, 2, 2.6, 4])
@pytest.mark.parametrize("start", [1, 4])
def test_a_gpu_gets_as_many_predictors_as_it_can_serve(serves: float, start: int) -> None:
    model = Model([Stage("model", 0.001, start=start, most=4, serves=serves, penalty=0.08, loads=5.0)], noise=0.01)
    model.run(400)
    assert model.rate() >= 0.93 * model.best(), (model.degrees, model.changes)
    assert model.degrees["model"] == pytest.approx(serves, abs=0.7)


def test_what_brings_nothing_is_taken_back_and_said_so() -> None:
    model = Model([Stage("model", 0.001, most=4, serves=1, loads=5.0)])
    model.run(100)
    (_, tried), (_, taken) = model.changes
    assert (tried.before, tried.degree, taken.degree) == (1, 2, 1)
    assert "busy 100%" in tried.reason and "bring too little" in taken.reason and "+0%" in taken.reason


def test_memory_is_never_passed() -> None:
    model = Model([Stage("model", 0.01, most=64, waits=True, bytes=8 * GIB)], ram=32 * GIB)
    model.run(200)
    # 4 GiB are taken by others, and 85 % of 32 may be used.
    assert model.degrees["model"] == 2
    assert model.changes


@pytest.mark.parametrize(("gpu", "reached"), [(0, 6), (80, 6), (60, 5), (50, 4), (12, 1), (4, 1)])
def test_memory_of_a_gpu_is_never_passed(gpu: int, reached: int) -> None:
    """1 GiB is taken by others, and 90 % may be used."""
    model = Model([Stage("model", 0.001, most=8, serves=6, gpu_bytes=10 * GIB)], gpu=gpu * GIB)
    model.run(200)
    assert model.degrees["model"] == reached
    if reached < 6:
        assert all(decision.degree <= reached for _, decision in model.changes), "never passed, even for a moment"


@pytest.mark.parametrize("places", [None, 4, 3, 1, 0])
def test_a_predictor_is_started_only_where_there_is_a_place(places: int | None) -> None:
    model = Model([Stage("model", 0.001, most=8, serves=6)], places=places)
    model.run(200)
    assert model.degrees["model"] == (6 if places is None else max(1, places))
    assert places is None or all(decision.degree <= places for _, decision in model.changes)


def test_two_models_share_the_memory_of_a_gpu() -> None:
    sizes = [Stage("detect", 0.002, most=6, serves=6, gpu_bytes=6 * GIB), Stage("embed", 0.001, most=6, serves=6, gpu_bytes=4 * GIB)]
    model = Model(sizes, gpu=40 * GIB)
    model.run(400)
    # 3 GiB are left, and each would need another copy to be any faster.
    assert model.degrees == {"detect": 4, "embed": 2} and model.rate() == model.best()


def test_a_stage_in_threads_does_not_mind_a_full_gpu() -> None:
    signal = replace(BUSY, mode="threads", has_place=False, gpu_bytes=GIB)
    tuner = Tuner()
    decisions: list[Decision] = []
    for second in range(10):
        decisions = decisions or tuner.step(float(second), [signal], Machine(8.0, gpu_total=GIB, gpu_used=GIB))
    assert [decision.degree for decision in decisions] == [2]


def test_a_machine_short_of_memory_gets_it_back() -> None:
    model = Model([Stage("big", 0.01, start=3, waits=True, bytes=10 * GIB), Stage("small", 0.01, start=3, waits=True)], ram=36 * GIB)
    model.run(5)
    assert model.degrees == {"big": 2, "small": 3}
    assert "memory" in model.changes[0][1].reason


def test_a_process_that_the_system_killed_for_memory_makes_them_one_less() -> None:
    tuner, signal = Tuner(), replace(BUSY, degree=3, ready=3, most=3)
    killed = [0, 0, 1, 1, 1, 3]
    decisions = [tuner.step(float(at), [signal], Machine(8.0, 5.9, 100 * GIB, GIB, killed=number)) for at, number in enumerate(killed)]
    assert [[decision.degree for decision in each] for each in decisions] == [[], [], [2], [], [], [2]]
    assert "killed one for want of memory" in decisions[2][0].reason
    alone = Tuner()
    assert not any(alone.step(float(at), [replace(BUSY, most=1)], Machine(8.0, killed=number)) for at, number in enumerate(killed))


def test_cores_that_are_taken_are_not_asked_for() -> None:
    model = Model([Stage("a", 0.01, start=4), Stage("b", 0.01, start=4)], cpus=4)
    model.run(300)
    assert all(decision.degree < decision.before for _, decision in model.changes)
    assert model.rate() == model.best()


def test_bounds_of_the_user_hold() -> None:
    model = Model([Stage("fixed", 0.01, start=2, fewest=2, most=2), Stage("free", 0.02, most=6, fewest=2, start=2)])
    model.run(200)
    assert model.degrees == {"fixed": 2, "free": 4}


def test_copies_that_idle_go() -> None:
    model = Model([Stage("idle", 0.0001, start=8), Stage("slow", 0.1, start=1, most=1, waits=True)])
    model.run(120)
    assert model.degrees["idle"] == 1


def test_nothing_is_tried_while_copies_load_or_there_is_no_work() -> None:
    tuner = Tuner()
    signal = BUSY
    machine = Machine(8.0)
    idle = replace(signal, rows=0, batches=0, busy_seconds=0.0, starved_seconds=1.0, queued_batches=0.0)
    now = 0.0
    for each, steps in ((idle, 60), (replace(signal, ready=0), 60)):
        for _ in range(steps):
            now += 1.0
            assert tuner.step(now, [each], machine) == []
    decisions = []
    for _ in range(10):
        now += 1.0
        decisions += tuner.step(now, [signal], machine)
        if decisions:
            break
    assert decisions[0].degree == 2


def test_other_batch_sizes_end_a_trial() -> None:
    tuner = Tuner()
    signal = StageSignal(
        "s", "processes", 1, 1, 1, 4, rows=100, batches=10, busy_seconds=1.0, queued_batches=3.0, batch_rows=8, is_last=True
    )
    now, seen = 0.0, []
    while not seen:
        now += 1.0
        seen = tuner.step(now, [signal], Machine(8.0))
    assert seen[0].degree == 2
    (back,) = tuner.step(now + 1, [replace(signal, degree=2, ready=2, batch_rows=16)], Machine(8.0))
    assert back.degree == 1 and "another size" in back.reason


@st.composite
def pipelines(draw: st.DrawFn) -> Model:
    stages = []
    for index in range(draw(st.integers(1, 4))):
        serves = draw(st.sampled_from([0.0, 0.0, 1.0, 2.0, 3.5]))
        fewest = draw(st.integers(1, 2))
        most = draw(st.integers(fewest, 6))
        stages.append(
            Stage(
                f"s{index}",
                draw(st.sampled_from([0.001, 0.002, 0.005, 0.01, 0.02])),
                start=draw(st.integers(fewest, most)),
                fewest=fewest,
                most=most,
                serves=serves,
                waits=draw(st.booleans()),
                penalty=draw(st.sampled_from([0.0, 0.05])),
                bytes=draw(st.sampled_from([0, GIB // 4, 2 * GIB])),
                gpu_bytes=draw(st.sampled_from([0, GIB, 3 * GIB])),
                loads=draw(st.sampled_from([0.0, 4.0])),
            )
        )
    return Model(
        stages,
        cpus=draw(st.sampled_from([2.0, 8.0, 16.0])),
        ram=draw(st.sampled_from([16, 64])) * GIB,
        gpu=draw(st.sampled_from([0, 8, 16, 80])) * GIB,
        places=draw(st.sampled_from([None, 1, 4, 8])),
        noise=draw(st.sampled_from([0.0, 0.01])),
        seed=draw(st.integers(0, 99)),
    )


@settings(max_examples=60, deadline=None)
@given(pipelines())
@example(Model([Stage("more would be of use but for the cores", 0.01, most=6, loads=4.0)], cpus=2.0))
def test_any_pipeline_comes_near_its_best_and_rests(model: Model) -> None:
    """`Model.run` sees to it that no guard is passed."""
    model.run(400)
    # Nobody gives way to another where there is not room for all.
    enough = 0.85 * model.best() if model.is_roomy else 0.0
    assert model.rate() >= enough, (model.degrees, model.changes)
    before = len(model.changes)
    model.run(700)
    # What was taken back is tried again after a rest that doubles: twice at most for each stage in this time, and taken back.
    assert len(model.changes) - before <= 8 * len(model.stages), model.changes[before:]
    assert model.rate() >= enough


@pytest.mark.parametrize(
    ("total", "used", "size", "room"),
    [(0, 0, GIB, None), (100, 85, 1, 0), (100, 90, 1, 0), (100, 5, 1, 80), (100, 5, 7, 11), (100, 5, 0, 80)],
)
def test_memory_has_room_for_so_many_copies(total: int, used: int, size: int, room: int | None) -> None:
    assert Machine(8.0, ram_total=total, ram_used=used).room_for(size) == room
