"""The simulator: masters, workers, store and output place in virtual time, with the real engine and the real session inside.

    from antinfer.testing import sim

    outcome = sim.run(sim.Scenario("mine", rows=(4, 3), workers=2, weather=sim.Weather(crash={"worker": 0.01})), seed=7)
    assert outcome.ok, outcome.transcript()

Everything that decides anything is the code that also runs in production (`antinfer.core`, `antinfer.worker.session`); the shells around
them, the store and the output place are models that take the same steps in the same order. Whatever chance decides, the seed decides.

``python -m antinfer.testing.sim`` searches drawn scenarios and shrinks what fails; `antinfer.testing.sim.fleet` plays whole jobs.
"""

from antinfer.testing.sim.catalogue import SCENARIOS
from antinfer.testing.sim.faults import Fault
from antinfer.testing.sim.recipes import Recipe
from antinfer.testing.sim.runner import Outcome, run
from antinfer.testing.sim.scenario import ENGINE, SESSION, Scenario, Switches, Weather
from antinfer.testing.sim.shrink import shrink
from antinfer.testing.sim.stage import Stage
from antinfer.testing.sim.swarm import draw
from antinfer.testing.sim.worker import DeleteStaged
from antinfer.testing.sim.world import Problem, World

__all__ = [
    "ENGINE",
    "SCENARIOS",
    "SESSION",
    "DeleteStaged",
    "Fault",
    "Outcome",
    "Problem",
    "Recipe",
    "Scenario",
    "Stage",
    "Switches",
    "Weather",
    "World",
    "draw",
    "run",
    "shrink",
]
