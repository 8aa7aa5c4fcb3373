"""The start of a master that was just submitted: waited for, so that whoever submits hears at once what keeps it from running."""

from __future__ import annotations

import time
from typing import Final

from antinfer.errors import InfraError, MasterError
from antinfer.launchers.kubernetes import masterpods
from antinfer.launchers.kubernetes.jobs import Jobs, SubmittedJob

_LOOK_S: Final = 0.5


def wait_for_master(jobs: Jobs, job: SubmittedJob, patience_s: float) -> str:
    """Wait until the master of a job runs, or has run. Returns an empty text, or after `patience_s` what it still waits for.

    Raises:
        MasterError: Something keeps it from starting that does not pass by itself.
        InfraError: The job has failed.
        ApiError: The server refuses, or cannot be reached.
    """
    name = f"{job.name} -n {jobs.namespace}"
    until = time.monotonic() + patience_s
    while True:
        pods = jobs.pods(job, "master")
        if any(masterpods.runs(pod) or pod["status"].get("phase") == "Succeeded" for pod in pods):
            return ""
        if pods:
            found = masterpods.obstacle(pods[-1])
            if found is not None and masterpods.is_hopeless(found):
                hint = f"`antinfer cancel {name}` removes the job; as long as it is there the cluster tries on."
                raise MasterError(f"the master of job {job.name} cannot start: {found.detail}", hint=hint)
        job = jobs.find(job.name)
        if job.phase == "failed":
            raise InfraError(f"job {job.name} has failed: {jobs.last_words(job) or job.reason}", hint=f"antinfer logs {name}")
        if time.monotonic() > until:
            return jobs.why_no_master(job)[0]
        time.sleep(_LOOK_S)
