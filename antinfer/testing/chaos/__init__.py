"""Chaos: a job under a plan of faults, and the proof that it lost nothing.

::

    report = antinfer.testing.chaos.run("job.yaml", "spot", seed=7)
    assert report.verdict == "whole", report.problems
"""

from __future__ import annotations

from antinfer.testing.chaos.kubernetes.venue import Kubernetes
from antinfer.testing.chaos.plan import FaultPlan, Moment, Rule, load_plan
from antinfer.testing.chaos.report import ChaosReport
from antinfer.testing.chaos.running import run

__all__ = ["ChaosReport", "FaultPlan", "Kubernetes", "Moment", "Rule", "load_plan", "run"]
