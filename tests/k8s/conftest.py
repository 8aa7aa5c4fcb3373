"""What the tests of the double share: a cluster without nodes, and ways to speak to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.k8s.double.cluster import Cluster
from tests.k8s.talk import Talk


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A cluster without nodes: an API server and its controllers."""
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def talk(cluster: Cluster) -> Talk:
    """Plain HTTP."""
    return Talk(cluster.url)


@pytest.fixture
def core(cluster: Cluster, tmp_path: Path) -> Iterator[Any]:
    """The official client for Python."""
    import kubernetes.client
    import kubernetes.config

    with kubernetes.config.new_client_from_config(str(cluster.kubeconfig(tmp_path / "kubeconfig"))) as client:
        yield kubernetes.client.CoreV1Api(client)
