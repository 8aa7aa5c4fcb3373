"""Who is asked to leave where nobody but the user starts workers."""

from __future__ import annotations

from antinfer.master.controller.sight import JobSight, WorkerSight, least_work


def test_those_with_the_least_uncommitted_work_go_first_and_nobody_twice() -> None:
    rows = {"a": 300, "b": 0, "c": 100, "d": 0}
    workers = {name: WorkerSight(uncommitted_rows=rows[name], is_draining=name == "b") for name in rows}
    job = JobSight(workers=workers)
    assert least_work(job, 2) == ["d", "c"]
    assert least_work(job, 9) == ["d", "c", "a"]
