"""Every cause has a rule, and the ones that DESIGN promises to be free are."""

from __future__ import annotations

import pytest

from antinfer.core.causes import Budget, Cause


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_says_who_pays(cause: Cause) -> None:
    assert cause.text
    assert cause.is_blameless == (cause.budget is Budget.NONE)
    assert not (cause.is_blameless and cause.strikes_range), "what nobody pays for must not corner rows"


@pytest.mark.parametrize("cause", [Cause.PREEMPTED, Cause.DRAINED, Cause.WOKE_LATE, Cause.MASTER_LOST, Cause.STORE_LOST, Cause.GPU_OOM])
def test_preemption_and_the_control_plane_cost_nothing(cause: Cause) -> None:
    assert cause.budget is Budget.NONE


def test_causes_have_distinct_names() -> None:
    assert len({cause.value for cause in Cause}) == len(Cause)
