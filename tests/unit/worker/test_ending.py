"""What a worker does about a job that was finished behind its back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from antinfer.core.ids import LeaseId
from antinfer.rpc.values import JobDocument
from antinfer.spec.canonical import document_json
from antinfer.spec.load import build_job
from antinfer.spec.yamlfile import Lines
from antinfer.storage import layout
from antinfer.storage.place import OutputPlace, open_place
from antinfer.testing.checks import stage_commit
from antinfer.worker import ending


@pytest.fixture
def place(tmp_path: Path) -> OutputPlace:
    return open_place(str(tmp_path / "out"))


@pytest.fixture
def job(tmp_path: Path) -> JobDocument:
    file = {"source": {"type": "text", "path": "in"}, "pipeline": [{"map_batches": "steps:f"}], "sink": {"path": "out"}}
    spec = build_job(file, Lines("job.yaml", {}), str(tmp_path))
    return JobDocument("job-1", json.dumps({"spec": json.loads(document_json(spec))}), spec.sink.path)


def test_the_end_is_seen_in_the_output_place(place: OutputPlace, job: JobDocument) -> None:
    assert not ending.is_finished(job)
    place.write(layout.SUCCESS, b"{}")
    assert ending.is_finished(job)


def test_what_was_staged_too_late_is_removed_and_nothing_of_later_reigns(place: OutputPlace, job: JobDocument) -> None:
    late, later = stage_commit(place, epoch=2), stage_commit(place, epoch=3)
    ending.tidy_up(job, [LeaseId(1, 7), LeaseId(2, 4)])
    assert len(place.list_staging()) == 2, "the job was not done yet"
    place.write(layout.SUCCESS, b"{}")
    ending.tidy_up(job, [])
    assert len(place.list_staging()) == 2, "it held nothing"
    ending.tidy_up(job, [LeaseId(1, 7), LeaseId(2, 4)])
    assert {layout.split_staged(stored.name)[0] for stored in place.list_objects(layout.STAGING)} == {later.staged}  # type: ignore[index]
    assert late.staged != later.staged
