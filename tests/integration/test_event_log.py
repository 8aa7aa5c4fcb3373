"""A master that is killed leaves a log that says so. Replayed, every reign does what it did, and a row's life is told over all of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from antinfer.spec.canonical import to_yaml
from antinfer.spec.schema import JobSpec
from antinfer.storage import eventlog, lives, reigns
from antinfer.storage.jobs import open_output
from antinfer.testing.chaos.processes import wait_until
from tests.integration.jobs import Scoring, command_line
from tests.integration.masters import MasterProcess, make_job, read_back
from tests.integration.scripted import ScriptedWorker


def test_a_killed_masters_reign_and_its_heirs(tmp_path: Path, seed: int) -> None:
    spec = make_job(tmp_path, files=4, rows=200)
    master = MasterProcess(spec, tmp_path, "--ttl", "2")
    try:
        worker = ScriptedWorker(master.start(), "w0", seed, pause_s=0.3).start()
        place = open_output(spec)
        wait_until(lambda: read_back(spec) and _committed_in_log(spec), "a commit is published, and in the log")
        master.kill()
        worker.stop()
        address = master.start()
        others = [ScriptedWorker(address, f"w{n}", seed + n).start() for n in (1, 2)]
        assert master.wait() == 0
        for other in others:
            other.join()
    finally:
        master.clean_up()
    first, second = eventlog.reigns(place)

    assert reigns.summarise(place, first).ended == ""
    assert any("killed" in note for note in reigns.summarise(place, first).notes)
    assert reigns.summarise(place, second).ended == "the job is done"
    for reign in (first, second):
        replayed = reigns.replay_reign(place, reign)
        assert replayed.fault == ""
        assert replayed.events == reigns.summarise(place, reign).events > 0

    told = [lives.life_of(place, shard) for shard in range(8)]
    for life in told:
        whats = [happening.what for reign in life.reigns for happening in reign.happenings]
        assert "leased" in whats
        # What was committed in the last second of the killed master may be known by its publication alone.
        assert any(what.endswith(("committed", "published")) for what in whats), whats
        assert sum(record.rows.size for record in life.records) == 100
    assert {life.reigns[0].happenings[-1].who for life in told if life.reigns[0].happenings} - {"w0", ""} == set()

    shown = command_line("story", spec.sink.path, "0:17")
    assert shown.returncode == 0, shown.stderr
    assert "reign 1 began" in shown.stdout
    assert "w0" in shown.stdout
    replayed_by_command = command_line("events", spec.sink.path, "--replay", environment={"PYTHONHASHSEED": "7"})
    assert replayed_by_command.returncode == 0, replayed_by_command.stderr
    assert replayed_by_command.stdout.count("the same documents, commands and story") == 2


def _committed_in_log(spec: JobSpec) -> bool:
    life = lives.life_of(open_output(spec), 0)
    return any(happening.what == "committed" for reign in life.reigns for happening in reign.happenings)


def test_a_whole_run_of_real_workers_is_replayed(tmp_path: Path) -> None:
    job = Scoring(tmp_path, shards=8, shard_rows=100, pause_s=0.0)
    spec = job.make()
    (tmp_path / "job.yaml").write_text(to_yaml(spec))
    done = command_line("run", str(tmp_path / "job.yaml"), "--workers", "2", "--json")
    assert done.returncode == 0, done.stderr
    place = open_output(spec)
    (reign,) = eventlog.reigns(place)
    replayed = reigns.replay_reign(place, reign)

    assert replayed.fault == ""
    assert replayed.events > 20
    (told,) = lives.life_of(place, 3, 7).reigns
    assert [happening.what for happening in told.happenings if happening.event] == [
        "leased",
        "committed",
        "published",
        "recorded in the manifest",
    ]
    cause = told.happenings[0].cause_id
    event = json.loads(command_line("events", str(tmp_path / "out"), cause).stdout)
    assert (event["id"], event["event"]) == (cause, "Requested")

    wrong = command_line("story", str(tmp_path / "out"), "x")
    assert (wrong.returncode, "Write SHARD" in wrong.stderr) == (2, True)
    absent = command_line("events", str(tmp_path / "out"), "9:9")
    assert (absent.returncode, "does not hold event 9:9" in absent.stderr) == (2, True)


@pytest.mark.parametrize("level", ["story", "off"])
def test_the_log_can_be_turned_down(tmp_path: Path, seed: int, level: str) -> None:
    spec = make_job(tmp_path, files=1, rows=100, event_log=level)
    master = MasterProcess(spec, tmp_path)
    try:
        worker = ScriptedWorker(master.start(), "w0", seed).start()
        assert master.wait() == 0
        worker.join()
    finally:
        master.clean_up()
    found = eventlog.reigns(open_output(spec))

    if level == "off":
        assert found == []
    else:
        told = reigns.summarise(open_output(spec), found[0])
        assert (told.events, told.lines >= 4) == (0, True)
        whats = [happening.what for happening in lives.life_of(open_output(spec), 0).reigns[0].happenings]
        # The scripted worker returns a range now and then, as its seed has it.
        assert (whats[0], whats[-1]) == ("leased", "committed") and set(whats) <= {"leased", "returned", "committed"}, whats
