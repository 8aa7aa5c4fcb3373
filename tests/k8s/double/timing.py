"""How long the slow things of a cluster take. One factor makes them all quicker; processes and what users ask of them run in real time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Durations of a real cluster in seconds, and the factor that turns them into the double's."""

    scale: float = 0.01
    node_monitor_grace: float = 40.0
    """From the kubelet's last word to Ready=Unknown."""
    no_execute_delay: float = 5.0
    """From Ready=Unknown, and its NoSchedule taint, to the NoExecute taint."""
    pod_gc_quarantine: float = 40.0
    """For how long PodGC leaves the pods of a node that does not exist alone."""
    pod_gc_period: float = 20.0
    collection: float = 0.5
    """From an owner's end to that of its dependents."""
    back_off_first: float = 10.0
    back_off_most: float = 300.0
    back_off_reset: float = 600.0
    """A container that ran this long begins anew with the first back-off."""
    mount_retry: float = 2.0
    sync: float = 10.0
    """How often a kubelet looks again at what it could not configure."""
    scheduler_retry: float = 5.0
    """From victims being preempted to another look at the pod that waits for their room, if nothing else causes one."""
    job_back_off_most: float = 600.0
    job_refused_most: float = 60.0
    """Longest pause after a pod of a job was not to be created; the first is a second."""
    bookmark: float = 60.0

    def of(self, seconds: float) -> float:
        """The double's duration for one of a real cluster, in seconds."""
        return seconds * self.scale

    def back_off(self, failures: int, *, most: float | None = None) -> float:
        """How long to wait after the `failures`-th failure in a row, in the double's seconds."""
        longest = self.back_off_most if most is None else most
        return self.of(min(self.back_off_first * 2 ** max(0, failures - 1), longest))
