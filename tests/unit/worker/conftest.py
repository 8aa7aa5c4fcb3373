"""What several modules of these tests are given."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from antinfer.worker.pipeline.stagecalls import StageCall


@pytest.fixture
def stage(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Makes stages of the user code that the test's module has as `CODE`."""
    name = f"steps_{uuid4().hex}"
    (tmp_path / f"{name}.py").write_text(request.module.CODE)

    def make(target: str, kind: str = "map_batches", **keys: Any) -> StageCall:
        return StageCall(target, kind, f"{name}:{target}", str(tmp_path), **keys)

    yield make
    sys.path.remove(str(tmp_path)) if str(tmp_path) in sys.path else None
    sys.modules.pop(name, None)
