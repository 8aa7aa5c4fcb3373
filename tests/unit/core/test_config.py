"""Intervals that grow with the number of workers."""

from __future__ import annotations

import pytest

from antinfer.core.config import EngineConfig


@pytest.mark.parametrize("workers", [1, 100, 1_000, 10_000, 50_000])
def test_a_master_hears_at_most_about_two_thousand_workers_a_second(workers: int) -> None:
    config = EngineConfig(ttl_ms=120_000)
    for interval in (config.heartbeat_interval_ms(workers), config.wait_interval_ms(workers)):
        assert workers / interval * 1000 <= 2_000 + 1e-6


def test_few_workers_wait_as_long_as_the_policy_says() -> None:
    config = EngineConfig()
    assert config.heartbeat_interval_ms(10) == config.heartbeat_ms
    assert config.wait_interval_ms(10) == config.wait_ms
    assert config.heartbeat_interval_ms(10_000) <= config.ttl_ms / 3, "three signs of life in a time to live, however many they are"
