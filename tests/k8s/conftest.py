"""What the tests of the double share: a cluster without nodes, and a way to speak to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.k8s.double.cluster import Cluster


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A cluster without nodes: an API server and its controllers."""
    with Cluster() as cluster:
        yield cluster
