"""What people see while a job runs: on a terminal, and in a log."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from antinfer.rpc.values import StageStats, Stats, Status, WorkerStatus
from antinfer.telemetry import figures
from antinfer.telemetry.progress import LiveProgress, PlainProgress


def status(**changed) -> Status:
    stats = Stats(
        stages=(
            StageStats("encode", busy=0.9, starved=0.1, degree=3, rows_per_second=50.0, batch_rows=64),
            StageStats("model", mode="processes", busy=0.4, starved=0.1, blocked=0.5, degree=1, rows_per_second=50.0, batch_rows=8),
        )
    )
    worker = WorkerStatus("local-1", "working", leases=2, rows_committed=250, silent_seconds=0.1, stats=stats)
    running = Status("j", "/out", 1, "running", rows_total=1_000, rows_committed=250, rows_per_second=50.0, eta_seconds=15.0)
    return replace(running, **{"plan_complete": True, "workers": (worker,), **changed})


def test_headline_says_rows_speed_time_and_bottleneck():
    assert figures.headline(status()) == "250 of 1,000 rows (25%), 50 rows/s, ETA 15.0 s, bottleneck: encode"


def test_counters_say_what_happened_and_nothing_else():
    assert (
        figures.counters(status(counters={"commits": 1_204, "leases_expired": 2, "commits_refused": 0}))
        == "1,204 commits, 2 leases expired"
    )
    assert figures.counters(status()) == ""


def test_causes_have_a_line_of_their_own_by_their_names():
    told = {"commits": 3, **figures.counted({"gpu_oom": 2, "process_crash": 1_204, "drained": 2, "stuck": 0})}
    assert figures.causes(told) == "1,204 process_crash, 2 drained, 2 gpu_oom"
    assert figures.counters(status(counters=told)) == "3 commits"
    assert figures.causes({"commits": 3}) == ""


def test_headline_while_the_input_is_planned():
    planning = status(rows_total=None, eta_seconds=None, plan_complete=False, files_planned=3, files_total=10_000, workers=())

    assert figures.headline(planning) == "250 rows, 50 rows/s, planning: 3 of 10,000 files"


def test_headline_of_nothing_to_do():
    assert figures.headline(status(rows_total=0, rows_committed=0, eta_seconds=None, workers=())) == "0 of 0 rows, 50 rows/s"


def test_rows_come_out_as_an_equation():
    assert [figures.fan(rows) for rows in (0, 1500, -2)] == ["", " + 1,500 fanned out", " - 2 filtered out"]


def test_quarantined_rows_show():
    assert ", 7 quarantined" in figures.headline(status(rows_quarantined=7))


def test_idle_stages_are_no_bottleneck():
    stages = figures.stages(status())
    assert figures.bottleneck([replace(stage, busy=0.4) for stage in stages]) == ""
    assert figures.bottleneck([]) == ""


def test_stages_of_all_workers_are_put_together():
    one = WorkerStatus("a", "working", 1, 1, 0.1, Stats(stages=(StageStats("s", degree=3, busy=1.0, rows_per_second=30.0),)))
    other = WorkerStatus("b", "working", 1, 1, 0.1, Stats(stages=(StageStats("s", mode="processes", busy=0.2, rows_per_second=5.0),)))
    gone = replace(other, worker="c", state="lost")
    mute = WorkerStatus("d", "working", 1, 1, 0.1)
    (stage,) = figures.stages(status(workers=(one, other, gone, mute)))
    # Weighed by copies: three at work all the time, one for a fifth of it.
    assert stage.busy == pytest.approx(0.8)
    assert stage.rows_per_second == 35.0 and stage.copies == "3 threads + 1 process"


@pytest.mark.parametrize(("seconds", "text"), [(3.21, "3.2 s"), (245, "4:05"), (7384, "2:03:04")])
def test_durations(seconds, text):
    assert figures.duration(seconds) == text


@pytest.mark.parametrize(("value", "text"), [(12_345, "12,345"), (1_230_000, "1.23 M"), (2.5e9, "2.50 G")])
def test_counts(value, text):
    assert figures.count(value) == text


@pytest.mark.parametrize(("value", "text"), [(17, "17 B"), (2048, "2.0 KiB"), (3 << 30, "3.0 GiB"), (5 << 40, "5.0 TiB")])
def test_sizes(value, text):
    assert figures.size(value) == text


def test_terminal_shows_the_bar_the_stages_and_the_workers():
    console = Console(file=io.StringIO(), force_terminal=True, width=120, record=True)
    with LiveProgress(console, "flights") as shown:
        shown.status(status())
        shown.line("local-1", "a [bracketed] word of the user's")

        console.print(shown._paint())

    text = console.export_text()
    assert "flights  ████████░" in text
    assert "250 of 1,000 rows (25%)" in text
    shown = {line.split()[0]: " ".join(line.split()) for line in text.splitlines() if line.strip()}
    assert shown["encode"] == "encode ▮▮▮▮▮▮▮▮▮▯ 90% 10% starved 0% blocked 50 rows/s 3 threads ◀ bottleneck"
    assert shown["model"] == "model ▮▮▮▮▯▯▯▯▯▯ 40% 10% starved 50% blocked 50 rows/s 1 process"
    assert "1 worker, 2 leases" in text
    assert "[local-1] a [bracketed] word of the user's" in text


def test_terminal_before_the_master_answers():
    console = Console(file=io.StringIO(), force_terminal=True, width=80, record=True)
    with LiveProgress(console, "flights") as shown:
        shown.status(None)
        console.print(shown._paint())

    assert "flights: starting" in console.export_text()


def test_log_gets_a_line_only_every_few_seconds(capsys):
    shown = PlainProgress()

    shown.status(None)
    shown.status(status())
    shown.status(status(rows_committed=500))
    shown.line("master", "said something")

    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.splitlines() == [figures.headline(status()), "[master] said something"]
