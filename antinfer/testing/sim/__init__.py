"""The simulator: masters, workers, store and output place in virtual time, with the real engine and the real session inside.

    from antinfer.testing import sim

    outcome = sim.run(sim.Scenario("mine", rows=(4, 3), workers=2, weather=sim.Weather(crash={"worker": 0.01})), seed=7)
    assert outcome.ok, outcome.transcript()

Everything that decides anything is the code that also runs in production (`antinfer.core`, `antinfer.worker.session`); the shells around
them, the store and the output place are models that take the same steps in the same order. Whatever chance decides, the seed decides.
"""

from antinfer.testing.sim.catalogue import SCENARIOS
from antinfer.testing.sim.runner import Outcome, run
from antinfer.testing.sim.scenario import ENGINE, SESSION, Scenario, Switches, Weather
from antinfer.testing.sim.stage import Stage
from antinfer.testing.sim.worker import DeleteStaged
from antinfer.testing.sim.world import Problem, World

__all__ = [
    "ENGINE",
    "SCENARIOS",
    "SESSION",
    "DeleteStaged",
    "Outcome",
    "Problem",
    "Scenario",
    "Stage",
    "Switches",
    "Weather",
    "World",
    "run",
]
