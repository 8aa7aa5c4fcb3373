"""The manifests for kustomize, Argo CD and Kueue: they load, fit together, and are what `antinfer submit` prints."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from antinfer.core.scaling.values import PREEMPTIBLE, PROTECTED
from antinfer.launchers.certificates import make_certificates
from antinfer.launchers.kubernetes.manifests import worker_pod
from antinfer.launchers.kubernetes.secret import Secrets
from antinfer.launchers.kubernetes.settings import KubernetesSettings
from antinfer.launchers.kubernetes.submission import Submission, object_name, objects, server_names
from antinfer.launchers.port import WorkerOrder
from antinfer.master.jobfile import job_id
from antinfer.spec.canonical import from_document
from antinfer.storage.filesystems import canonical_uri
from tests.deploy.charts import CHART, ROOT, Object, needs_helm, one, render
from tests.k8s.double.kinds import RESOURCES
from tests.k8s.double.schema import check

BASE = ROOT / "deploy" / "kustomize" / "base"
OVERLAY = ROOT / "deploy" / "kustomize" / "overlays" / "spot"
KUEUE = ROOT / "deploy" / "kueue" / "queues.yaml"
APPLICATION = ROOT / "deploy" / "argocd" / "application.yaml"
QUEUE = "kueue.x-k8s.io/queue-name"


def load(path: Path) -> list[Object]:
    return list(yaml.safe_load_all(path.read_text()))


def identity(document: Object) -> tuple[str, str]:
    """The id of a job, and the name of its objects."""
    id_ = job_id(canonical_uri(document["sink"]["path"]))
    return id_, object_name(document["name"], id_)


def test_the_base_is_what_submit_prints() -> None:
    (kustomization,) = load(BASE / "kustomization.yaml")
    (generator,) = kustomization["configMapGenerator"]
    sources = {key: file or key for key, _, file in (each.partition("=") for each in generator["files"])}
    data = {key: (BASE / file).read_text() for key, file in sources.items()}
    document = json.loads(data["job.json"])
    from_document(data["job.json"])
    id_, name = identity(document)
    wanted = objects(
        Submission(
            job=id_,
            title=document["name"],
            document=data["job.json"],
            code={"steps.py": (BASE / "steps.py").read_bytes()},
            image="registry.example/antinfer:1",
            secrets=Secrets(make_certificates(server_names(name, "default"))),
            classes={PROTECTED: {}, PREEMPTIBLE: {}},
        )
    )
    config = one(wanted, "ConfigMap")
    assert generator["name"] == name and generator["namespace"] == "default"
    assert generator["options"]["labels"] == config["metadata"]["labels"]
    assert json.loads(data.pop("kubernetes.json")) == json.loads(config["data"].pop("kubernetes.json"))
    # What `antinfer resume` makes the objects from again: here kustomize does.
    del config["data"]["submission.json"]
    assert data == config["data"]
    listed = [each for file in kustomization["resources"] for each in load(BASE / file)]
    rest = [each for each in wanted if each["kind"] not in ("ConfigMap", "Secret")]
    assert sorted(map(json.dumps, listed)) == sorted(map(json.dumps, rest))
    assert not any(each["kind"] == "Secret" for each in listed)


def test_the_overlay_says_one_image_for_master_and_workers() -> None:
    (kustomization,) = load(OVERLAY / "kustomization.yaml")
    (image,) = kustomization["images"]
    settings = KubernetesSettings.read(OVERLAY / "kubernetes.json")
    assert settings.image == f"{image['name']}:{image['newTag']}"
    before = KubernetesSettings.read(BASE / "kubernetes.json")
    for name in ("master", "namespace", "secret", "server_name"):
        assert getattr(settings, name) == getattr(before, name)
    nodes = {}
    for worker_class in (PROTECTED, PREEMPTIBLE):
        pod = worker_pod(settings, WorkerOrder("w", worker_class), job="j", master=settings.master)
        check(kind("Pod"), pod, strict=True)
        assert pod["metadata"]["labels"][QUEUE] == "batch"
        nodes[worker_class] = pod["spec"]["nodeSelector"]
    assert nodes == {PROTECTED: {"pool": "on-demand"}, PREEMPTIBLE: {"pool": "spot"}}


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.parametrize("folder", [BASE, OVERLAY], ids=["base", "overlay"])
def test_kustomize_makes_objects_that_a_server_takes(folder: Path) -> None:
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    made = list(yaml.safe_load_all(done.stdout))
    for each in made:
        check(kind(each["kind"]), each, strict=True)
    job, config = one(made, "Job"), one(made, "ConfigMap")
    volumes = job["spec"]["template"]["spec"]["volumes"]
    assert {each["configMap"]["name"] for each in volumes if "configMap" in each} == {config["metadata"]["name"]}
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert json.loads(config["data"]["kubernetes.json"])["image"] == container["image"]
    assert job["metadata"]["labels"].get(QUEUE) == ("batch" if folder is OVERLAY else None)


def kind(name: str) -> Any:
    return next(each for each in RESOURCES if each.kind == name)


@needs_helm
def test_the_application_holds_values_that_the_chart_takes() -> None:
    (application,) = load(APPLICATION)
    source, namespace = application["spec"]["source"], application["spec"]["destination"]["namespace"]
    assert ROOT / source["path"] == CHART
    values = source["helm"]["valuesObject"]
    rendered = render(values, namespace)
    id_, name = identity(values["job"]["file"])
    assert values["secret"]["existing"] == name, "the Secret that submit prints has the name of the job's objects"
    assert not any(each["kind"] == "Secret" for each in rendered), "nothing is drawn anew at each refresh"
    assert rendered == render(values, namespace)
    assert one(rendered, "ConfigMap")["metadata"]["labels"]["antinfer.io/job"] == id_


def test_queues_lead_to_each_other() -> None:
    found = load(KUEUE)
    assert {each["apiVersion"] for each in found} == {"kueue.x-k8s.io/v1beta1"}
    cluster_queue, local_queue = one(found, "ClusterQueue"), one(found, "LocalQueue")
    assert local_queue["spec"]["clusterQueue"] == cluster_queue["metadata"]["name"]
    flavors = {each["metadata"]["name"]: each["spec"]["nodeLabels"] for each in found if each["kind"] == "ResourceFlavor"}
    for group in cluster_queue["spec"]["resourceGroups"]:
        assert {each["name"] for each in group["flavors"]} == flavors.keys()
        for flavor in group["flavors"]:
            assert [each["name"] for each in flavor["resources"]] == group["coveredResources"]
    pools = KubernetesSettings.read(OVERLAY / "kubernetes.json").classes.values()
    assert [pool["spec"]["nodeSelector"] in flavors.values() for pool in pools] == [True, True]
