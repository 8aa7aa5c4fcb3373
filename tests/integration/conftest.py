"""What several modules of these tests are given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.predictorbench import Bench


@pytest.fixture
def make_bench(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """Makes benches, called as `Bench` without its folder; all are stopped at the end."""
    made: list[Bench] = []

    def make(*args: Any, **keys: Any) -> Bench:
        made.append(Bench(tmp_path, *args, **keys))
        return made[-1]

    yield make
    for bench in made:
        bench.stop()
