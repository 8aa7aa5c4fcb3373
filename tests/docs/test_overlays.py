"""What the pages about Kubernetes have users write: job files that load, and overlays that bring each pod to its nodes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from antinfer.core.scaling.values import PREEMPTIBLE, PROTECTED
from antinfer.launchers.kubernetes.manifests import worker_pod
from antinfer.launchers.kubernetes.settings import KubernetesSettings
from antinfer.launchers.port import WorkerOrder
from tests.integration.jobs import ROOT, command_line, make_spec
from tests.k8s.double.cluster import Cluster
from tests.k8s.double.nodes import Node
from tests.k8s.double.objects import dig
from tests.k8s.talk import PODS, Talk

PAGES = [ROOT / "docs" / "operations" / name for name in ("kubernetes.md", "preemptible.md")]
TEMPLATES = {"master", "worker", PROTECTED, PREEMPTIBLE}
SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
BLOCK = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A piece of YAML in a page."""

    section: str
    number: int
    text: str

    def __str__(self) -> str:
        return f"{self.section} {self.number}"

    @property
    def is_overlay(self) -> bool:
        return yaml.safe_load(self.text).keys() <= TEMPLATES


def blocks(page: Path) -> list[Block]:
    _, *parts = SECTION.split(page.read_text())
    sections = zip(parts[::2], parts[1::2], strict=True)
    return [Block(title, number, text) for title, body in sections for number, text in enumerate(BLOCK.findall(body), start=1)]


BLOCKS = [block for page in PAGES for block in blocks(page)]
OVERLAYS = [block for block in BLOCKS if block.is_overlay]


@dataclass(frozen=True)
class Pool:
    """What a cloud puts on nodes of either kind."""

    staying: Mapping[str, str]
    spot: Mapping[str, str]
    taint: Mapping[str, str] = field(default_factory=dict)


POOLS = {
    "Google: GKE 1": Pool(
        {}, {"cloud.google.com/gke-spot": "true"}, {"key": "cloud.google.com/gke-spot", "value": "true", "effect": "NoSchedule"}
    ),
    "AWS: EKS 1": Pool({"eks.amazonaws.com/capacityType": "ON_DEMAND"}, {"eks.amazonaws.com/capacityType": "SPOT"}),
    "AWS: EKS 2": Pool({"karpenter.sh/capacity-type": "on-demand"}, {"karpenter.sh/capacity-type": "spot"}),
    "Azure: AKS 1": Pool(
        {},
        {"kubernetes.azure.com/scalesetpriority": "spot"},
        {"key": "kubernetes.azure.com/scalesetpriority", "value": "spot", "effect": "NoSchedule"},
    ),
}


def pods_by(block: Block, folder: Path) -> dict[str, dict[str, Any]]:
    """Return the pods that `antinfer submit` makes of a job with this overlay: its master's, and one of each class of workers."""
    file = folder / "pods.yaml"
    file.write_text(block.text)
    done = command_line("submit", str(ROOT / "examples/flights/job.yaml"), "--image", "i:1", "--pods", str(file), "--dry-run", "-o", "yaml")
    assert done.returncode == 0, done.stderr
    made = {each["kind"]: each for each in yaml.safe_load_all(done.stdout)}
    settings = KubernetesSettings(**json.loads(made["ConfigMap"]["data"]["kubernetes.json"]))
    master = made["Job"]["spec"]["template"]
    master["metadata"]["name"] = "master"
    workers = {name: worker_pod(settings, WorkerOrder(name, name), job="j", master="m:1") for name in (PROTECTED, PREEMPTIBLE)}
    found = {"master": master, **workers}
    for pod in found.values():
        # Their own accounts are not there.
        pod["spec"]["serviceAccountName"] = "default"
    return found


def test_every_piece_is_looked_at() -> None:
    assert {str(block) for block in OVERLAYS} == {*POOLS, *(f"Pods of your own making {number}" for number in (1, 2, 3))}
    assert [str(block) for block in BLOCKS if not block.is_overlay] == ["From nothing to a running job 1"]


@pytest.mark.parametrize("block", [block for block in BLOCKS if not block.is_overlay], ids=str)
def test_a_job_file_is_one(block: Block, tmp_path: Path) -> None:
    assert make_spec(yaml.safe_load(block.text), tmp_path).workers.max


@pytest.mark.parametrize("block", OVERLAYS, ids=str)
def test_a_server_takes_the_pods_of_an_overlay(block: Block, tmp_path: Path) -> None:
    with Cluster() as cluster:
        for pod in pods_by(block, tmp_path).values():
            taken = Talk(cluster.url).create(PODS, pod, dryRun="All", fieldValidation="Strict")
            assert taken["spec"]["containers"]


@pytest.mark.parametrize("block", [block for block in OVERLAYS if str(block) in POOLS], ids=str)
def test_only_preemptible_workers_are_on_nodes_that_may_go(block: Block, tmp_path: Path) -> None:
    pool = POOLS[str(block)]
    taints = (pool.taint,) if pool.taint else ()
    nodes = [Node("staying", labels=pool.staying, pretend=True), Node("spot", labels=pool.spot, taints=taints, pretend=True)]
    with Cluster(nodes) as cluster:
        for name, pod in pods_by(block, tmp_path).items():
            Talk(cluster.url).create(PODS, pod)
            node = cluster.wait(lambda name=name: dig(cluster.pod(name), "spec", "nodeName"), f"a place for {name}")
            assert node == ("spot" if name == PREEMPTIBLE else "staying")
