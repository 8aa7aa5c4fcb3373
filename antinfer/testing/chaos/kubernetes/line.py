"""The connection to whichever master of a submitted job rules: through the API server, and made again whenever it breaks."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Final

from antinfer.errors import MasterError
from antinfer.launchers.kubernetes.api import ApiError
from antinfer.launchers.kubernetes.jobs import Jobs, SubmittedJob
from antinfer.rpc.client import AdminClient
from antinfer.rpc.values import Status
from antinfer.testing.chaos.watching import PATIENCE_S

_AGAIN_S: Final = 0.5
"""A cluster takes its time to start another master: so long between two looks for it."""
_FORBIDDEN: Final = 403


class Line:
    """For one thread at a time."""

    def __init__(self, jobs: Jobs, job: SubmittedJob) -> None:
        self._jobs = jobs
        self._job = job
        self._open = ExitStack()
        self._admin: AdminClient | None = None
        self._not_before = 0.0
        self.trouble = ""
        """Why no master answered last."""

    def status(self) -> Status | None:
        """Return what the master says; None while none answers. Raises `ApiError` when we may not reach it."""
        if self._admin is None and time.monotonic() < self._not_before:
            return None
        try:
            return self._reached().status(timeout_s=PATIENCE_S)
        except (ApiError, MasterError) as error:
            if isinstance(error, ApiError) and error.status == _FORBIDDEN:
                raise
            # It is away, and that is what we are here for.
            self.trouble = str(error)
        self.close()
        self._not_before = time.monotonic() + _AGAIN_S
        return None

    def cancel(self, reason: str) -> None:
        """End the job. Raises `InfraError` when no master can be told."""
        self._reached().cancel(reason, timeout_s=PATIENCE_S)

    def close(self) -> None:
        self._admin = None
        self._open.close()

    def _reached(self) -> AdminClient:
        if self._admin is None:
            self._admin = self._open.enter_context(self._jobs.reach(self._job))
        return self._admin
