"""From measurements to the expected rate, its bottleneck and the advice, with numbers that can be checked by hand."""

from __future__ import annotations

import json

import pytest

from antinfer.worker.profiling.advice import advise
from antinfer.worker.profiling.comparison import compare
from antinfer.worker.profiling.model import CORES, Measurement, Profile, StageProfile, best, forecast, scaling


def measured(rate, cpu=0.0, *, degree=1, runs_as="threads", batch_rows=0, gil=None):
    return Measurement(runs_as, degree, batch_rows, rate, cpu, gil)


def stage(name, *measurements, kind="map_batches", share=1.0, **more):
    return StageProfile(name, kind, 100, share, 8.0, 8.0, measurements=measurements, **more)


def profile(*stages, cores=16):
    return Profile("job", "f" * 64, cores, 100, 0, stages)


def test_slowest_stage_sets_the_rate():
    found = forecast(profile(stage("fast", measured(5000)), stage("slow", measured(400)), stage("faster", measured(9000))))

    assert (found.rate, found.limit, found.bottleneck) == (pytest.approx(400), "slow", "slow")
    assert {each.name: each.load for each in found.stages} == pytest.approx({"fast": 0.08, "slow": 1.0, "faster": 400 / 9000})
    assert found.next_rate == pytest.approx(800)


def test_cores_are_shared():
    # Alone each stage has all four cores: 4 / 0.001 and 4 / 0.003 rows/s. Together they need 0.004 core seconds a row.
    found = forecast(profile(stage("one", measured(4000, 0.001, degree=4)), stage("two", measured(4 / 0.003, 0.003, degree=4)), cores=4))

    assert (found.rate, found.limit, found.bottleneck) == (pytest.approx(1000), CORES, "two")
    assert found.cores_used == pytest.approx(4)
    assert {each.name: each.cores for each in found.stages} == pytest.approx({"one": 1.0, "two": 3.0})


def test_stages_behind_a_fan_out_are_counted_in_input_rows():
    # Ten faces a photograph: 2,000 faces/s are 200 photographs/s, less than the detector makes.
    found = forecast(profile(stage("detect", measured(300)), stage("embed", measured(2000, 0.0004), share=10.0)))

    assert (found.rate, found.bottleneck) == (pytest.approx(200), "embed")
    assert {each.name: each.ceiling for each in found.stages} == pytest.approx({"detect": 300, "embed": 200})
    assert found.cores_used == pytest.approx(200 * 10 * 0.0004)


def test_stages_on_one_gpu_take_turns():
    one = stage("one", measured(1000, runs_as="processes"), kind="predict", devices=("0",))
    two = stage("two", measured(3000, runs_as="processes"), kind="predict", devices=("0",))
    other = stage("other", measured(900, runs_as="processes"), kind="predict", devices=("1",))

    shared, alone = forecast(profile(one, two, other)), forecast(profile(one, other))

    assert (shared.rate, shared.limit, shared.bottleneck) == (pytest.approx(750), "GPU 0", "one")
    assert (alone.rate, alone.limit) == (pytest.approx(900), "other")


def test_accumulators_and_writer_share_threads():
    found = forecast(profile(stage("accumulators", measured(1000), kind="accumulators", within="writer"), stage("writer", measured(1000))))

    assert (found.rate, found.limit) == (pytest.approx(500), "writer")


def test_stage_that_no_row_reaches_costs_nothing():
    found = forecast(profile(stage("all", measured(100)), stage("none", share=0.0)))

    assert found.rate == pytest.approx(100)
    assert [each.name for each in found.stages] == ["all"]


# An H100 with 16 cores: 9,200 images/s decoded by the cores, 16,000 by the GPU, and a model of 21,000.
CPU, GPU_DECODE, MODEL = 9200.0, 16000.0, 21000.0


def images(gpu_share=None, *, fused=True, cores=10_000):
    raw = (measured(1 / (1 / MODEL + 1 / GPU_DECODE), runs_as="processes"),) if fused else ()
    return profile(
        stage("decode", measured(CPU, 16 / CPU, degree=16)),
        stage(
            "model", measured(MODEL, runs_as="processes"), kind="predict", fused=raw, hybrid="decode", gpu_share=gpu_share, devices=("0",)
        ),
        cores=cores,
    )


def by_formula(share):
    """R = min(cpu / f, 1 / (1 / model + (1 - f) / gpu decode)), as in the literature on hybrid loading."""
    on_cpu = 1 - share
    gpu = 1 / (1 / MODEL + share / GPU_DECODE)
    return min(CPU / on_cpu, gpu) if on_cpu else gpu


def test_hybrid_stage_finds_the_joint_optimum():
    found = forecast(images())

    wanted = max(by_formula(step / 1000) for step in range(1001))
    assert found.rate == pytest.approx(wanted, rel=0.01)
    assert found.rate > 1.4 * max(CPU, by_formula(1.0)) > 0
    assert 0.3 < found.fused_shares["model"] < 0.4


@pytest.mark.parametrize(
    ("given", "expected", "limit"), [(0.0, CPU, "decode"), (1.0, by_formula(1.0), "model"), (0.1, CPU / 0.9, "decode")]
)
def test_hybrid_share_of_the_job_is_kept(given, expected, limit):
    found = forecast(images(given))

    assert found.rate == pytest.approx(expected, rel=0.001)
    assert (found.fused_shares["model"], found.limit) == (pytest.approx(given), limit)


def test_hybrid_stage_that_has_nothing_to_do_has_no_ceiling():
    assert {each.name: each.ceiling for each in forecast(images(1.0)).stages}["decode"] is None


def test_best_prefers_fewer_copies_among_equals():
    one, two, four = measured(980, degree=1), measured(1000, degree=2), measured(990, degree=4)

    assert best([four, two, one]) is one
    assert best([measured(800, degree=1), two]) is two
    assert best([]) is None


def test_scaling_compares_with_one_copy_of_the_same_kind():
    among = [measured(100), measured(60, runs_as="processes"), measured(180, degree=2), measured(90, degree=2, runs_as="processes")]

    assert [scaling(each, among) for each in among] == pytest.approx([1.0, 1.0, 1.8, 1.5])
    assert scaling(measured(5, degree=8, batch_rows=7), among) is None


def test_profile_survives_json():
    before = images()

    assert Profile.from_json(json.loads(json.dumps(before.to_json()))) == before
    with pytest.raises(KeyError):
        Profile.from_json({"job": "x"})


# -- advice ------------------------------------------------------------------------------------------------------------------------------


def advice_for(found):
    return advise(found, forecast(found))


def test_advice_when_the_cores_starve_the_gpu():
    found = profile(
        stage("decode", measured(9200, 16 / 9200, degree=16)),
        stage("model", measured(12600, 2 / 12600, runs_as="processes"), kind="predict", devices=("0",)),
    )
    text = advice_for(found)

    # 16 / 9,200 + 2 / 12,600 core seconds a row: 16 cores make 8,432 rows/s, and 12,600 need 23.9 of them.
    assert forecast(found).rate == pytest.approx(16 / (16 / 9200 + 2 / 12600))
    assert text.startswith("decode is the bottleneck: it takes 92% of the CPU time")
    assert "8 more cores would keep the GPU busy (12,600 rows/s), or give it an on_gpu" in text


def test_a_stage_that_waits_does_not_hold_the_gil():
    text = advice_for(profile(stage("fetch", measured(100, 0.001, gil=0.6))))
    assert "GIL" not in text


def test_advice_for_the_gil():
    text = advice_for(profile(stage("parse", measured(100, 0.01, gil=0.98), measured(96, 0.01, degree=2))))

    assert text == "parse is the bottleneck, and holds the GIL 98% of the time: let it run in processes (workers_as: processes)"


def test_advice_for_a_stage_that_waits():
    text = advice_for(profile(stage("fetch", measured(20, 0.001), concurrency=1)))

    assert text == "fetch is the bottleneck: it waits more than it computes, so raise its concurrency from 1"


@pytest.mark.parametrize(
    ("kind", "more", "expected"),
    [
        ("reader", {}, "reading is the bottleneck: read fewer columns (source.columns)"),
        ("writer", {}, "writing is the bottleneck: return fewer columns"),
        ("predict", {"devices": ("0",)}, "slow is the bottleneck: another GPU, or a cheaper model"),
        ("predict", {}, "slow is the bottleneck: a cheaper model, or a GPU (num_gpus)"),
    ],
)
def test_advice_names_what_helps(kind, more, expected):
    assert advice_for(profile(stage("slow", measured(50, 0.02), kind=kind, **more), stage("fast", measured(5000)))).startswith(expected)


# -- comparison --------------------------------------------------------------------------------------------------------------------------


def test_comparison_of_a_run_with_its_profile():
    found = profile(
        stage("decode", measured(800, 0.002, degree=4)),
        stage("embed", measured(5000, runs_as="processes"), kind="predict", share=2.0),
        stage("writer", measured(10_000), kind="writer"),
    )
    waits = {"starved_seconds": 10.0, "blocked_seconds": 40.0}
    told = [
        {"name": "decode", "rows_in": 9000, "busy_seconds": 50.0, "rows_per_second": 600.0, **waits},
        {"name": "embed", "rows_in": 18_000, "busy_seconds": 4.0, "rows_per_second": 1300.0, "starved_seconds": 0.0},
    ]
    compared = compare(found, forecast(found), {"rows_in": 9000, "stages": told})

    # The faces of 650 photographs a second would have been embedded, had more been decoded than those of 600.
    assert (compared.expected, compared.reached) == (pytest.approx(800), pytest.approx(600))
    decode, embed, writer = compared.stages
    assert (decode.expected, decode.reached) == (pytest.approx(800), pytest.approx(600))
    assert (decode.copy_expected, decode.copy_reached) == (pytest.approx(200), pytest.approx(180))
    assert (decode.busy_expected, decode.busy_reached) == (pytest.approx(1.0), pytest.approx(0.5))
    assert (embed.expected, embed.busy_reached) == (pytest.approx(1600), pytest.approx(1.0))
    assert (writer.reached, writer.copy_reached, writer.busy_reached) == (None, None, None)
    assert compared.headline() == "job: expected 800 input rows/s a worker, reached 600 (75%); expected bottleneck decode, busiest embed"


def test_comparison_with_a_report_that_says_little():
    found = profile(stage("decode", measured(800)))
    compared = compare(found, forecast(found), {"rows_in": 10})

    assert (compared.reached, compared.busiest) == (None, "")
    assert compared.headline() == "job: expected 800 input rows/s a worker; expected bottleneck decode"
