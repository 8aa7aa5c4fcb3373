"""Whole jobs with thousands of workers: the real engine and the real sessions, with everything below a lease as arithmetic.

    from antinfer.testing.sim import fleet

    report = fleet.run(fleet.Conditions(workers=10_000, shards=1_000_000), seed=7)
    assert report.ok, report

The kernel beside it looks at every step of the commit protocol for a handful of workers; this looks at policy and size, for thousands.
"""

from antinfer.testing.sim.fleet.conditions import Conditions, Losses, Scaling, Speeds
from antinfer.testing.sim.fleet.job import Job, Report, run

__all__ = ["Conditions", "Job", "Losses", "Report", "Scaling", "Speeds", "run"]
