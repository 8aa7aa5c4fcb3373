"""The Helm chart makes what `antinfer submit` makes, and says what is wrong with its values."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from antinfer.core.scaling.values import PREEMPTIBLE, PROTECTED
from antinfer.launchers.certificates import make_certificates
from antinfer.launchers.kubernetes.manifests import worker_pod
from antinfer.launchers.kubernetes.policies import master_ports
from antinfer.launchers.kubernetes.secret import Secrets
from antinfer.launchers.kubernetes.settings import KubernetesSettings
from antinfer.launchers.kubernetes.submission import Submission, object_name, objects, server_names
from antinfer.launchers.port import WorkerOrder
from antinfer.master.__main__ import _parse
from antinfer.master.jobfile import job_id
from antinfer.spec.canonical import from_document
from antinfer.storage.filesystems import canonical_uri
from tests.deploy.charts import CHART, VALUES, Object, helm, needs_helm, one, refusal, render, values
from tests.k8s.double.kinds import RESOURCES
from tests.k8s.double.schema import check

pytestmark = needs_helm
FILE = VALUES["job"]["file"]
CODE = {"lib/more.py": '# "more"\n\tü\n', "steps.py": "def key(batch):\n    return batch\n"}
WORKER = {"spec": {"containers": [{"name": "worker", "resources": {"limits": {"nvidia.com/gpu": 1}}}], "tolerations": [{"key": "gpu"}]}}
SPOT = {"spec": {"nodeSelector": {"pool": "spot"}}}
FULL = values(
    image={**VALUES["image"], "pullPolicy": "Always", "pullSecrets": ["registry"]},
    job={"file": FILE, "private": True},
    code={"files": CODE},
    master={"env": [{"name": "AWS_ENDPOINT_URL", "value": "http://minio:9000"}], "priorityClassName": "high", "podLabels": {"a": "b"}},
    workers={"template": WORKER, "preemptible": SPOT, "protected": {"metadata": {"labels": {"c": "d"}}}},
    valkey={"enabled": True, "storageClassName": "fast"},
    serviceAccount={"annotations": {"iam": "role"}},
    networkPolicy={"egress": [9443]},
    kueue={"queue": "batch"},
    labels={"team": "x"},
    annotations={"owner": "y"},
)
EXISTING = values(
    job={"existingConfigMap": "flights", "output": "/mnt/data//out/", "name": ""},
    code={"existingConfigMap": "code"},
    secret={"existing": "theirs", "serverName": "m.ns"},
    store={"existing": True},
    serviceAccount={"create": False, "name": "master"},
    rbac={"create": False},
    networkPolicy={"enabled": False},
)
EACH = {"least": VALUES, "full": FULL, "existing": EXISTING}
each_values = pytest.mark.parametrize("given", EACH.values(), ids=EACH)


def submission(file: Object, **changes: Any) -> Submission:
    """What `antinfer submit` would be given for the same job."""
    id_ = job_id(canonical_uri(file["sink"]["path"]))
    certificates = make_certificates(server_names(object_name(file["name"], id_), "batch"))
    given: dict[str, Any] = {"title": file["name"], "document": json.dumps(file), "code": {}, "secrets": Secrets(certificates)}
    given["classes"] = {PROTECTED: {}, PREEMPTIBLE: {}}
    return Submission(job=id_, image="registry.example/antinfer:1", namespace="batch", **{**given, **changes})


def ours(obj: Object) -> Object:
    """An object without its name and what says that Helm made it; text in JSON read, and lists of ports in one order."""
    obj = json.loads(json.dumps(obj))
    for name in ("app.kubernetes.io/instance", "app.kubernetes.io/managed-by", "helm.sh/chart"):
        obj["metadata"]["labels"].pop(name, None)
    if obj["kind"] == "ConfigMap":
        settings = json.loads(obj["data"]["kubernetes.json"])
        obj["data"] |= {"job.json": json.loads(obj["data"]["job.json"]), "kubernetes.json": KubernetesSettings(**settings)}
    for rule in obj.get("spec", {}).get("egress", ()):
        rule["ports"].sort(key=lambda each: (each["port"], each["protocol"]))
    del obj["metadata"]["name"]
    return obj


def print_of(job: Object) -> str:
    return job["metadata"]["annotations"]["antinfer.io/print"]


def named(obj: Object) -> tuple[str, str]:
    return obj["metadata"]["name"], obj["kind"]


@pytest.mark.parametrize("code", [{}, CODE], ids=["without code", "with code"])
def test_it_makes_what_submit_makes(code: dict[str, str]) -> None:
    made = {named(each): ours(each) for each in render(values(code={"files": code}))}
    wanted = {named(each): ours(each) for each in objects(submission(FILE, code={path: text.encode() for path, text in code.items()}))}
    (name, _), *_ = wanted
    assert print_of(made[name, "Job"])
    del made[name, "Job"]["metadata"]["annotations"]
    # Such a job is submitted again by Helm alone.
    del wanted[name, "ConfigMap"]["data"]["submission.json"]
    for each in (made, wanted):
        secret = each[name, "Secret"]
        secret["stringData"] = sorted(secret["stringData"])
    assert made == wanted


def test_its_rights_are_those_of_submit() -> None:
    rendered = render(FULL)
    for wanted in objects(submission(FILE)):
        if wanted["kind"] == "Role":
            assert one(rendered, "Role")["rules"] == wanted["rules"]
        if wanted["kind"] == "RoleBinding":
            assert {key: one(rendered, "RoleBinding")[key] for key in ("subjects", "roleRef")} == {
                key: wanted[key] for key in ("subjects", "roleRef")
            }
    assert not any(each["kind"].startswith("Cluster") for each in rendered)
    assert not any(each["kind"] in ("Role", "RoleBinding", "ServiceAccount") for each in render(EXISTING))


@pytest.mark.parametrize(
    ("output", "name"),
    [
        ("s3://bucket/a//b/", "One two: three"),
        ("S3A://bucket/a", ""),
        ("gcs://bucket/Large Folder/", ""),
        ("/mnt//data/../out/", "A very long name, longer than a name may be"),
        ("abfs://container@account/a//b", "Ärger"),
        ("hdfs://namenode:8020/a//b/", "---"),
    ],
)
def test_one_output_is_one_job_by_whatever_way_it_is_started(output: str, name: str) -> None:
    rendered = render(values(job={"file": {**FILE, "name": name, "sink": {"path": output}}}))
    id_ = job_id(canonical_uri(output))
    spec = from_document(json.dumps({**FILE, "name": name, "sink": {"path": output}}))
    for each in rendered:
        assert each["metadata"]["labels"]["antinfer.io/job"] == id_
    assert one(rendered, "ConfigMap")["metadata"]["name"] == object_name(spec.name, id_)


@each_values
def test_a_server_takes_every_object(given: Object) -> None:
    kinds = {each.kind: each for each in RESOURCES}
    for obj in render(given):
        check(kinds[obj["kind"]], obj, strict=True)
        assert obj["metadata"]["namespace"] == "batch"
        assert all(isinstance(value, str) and len(value) <= 63 for value in obj["metadata"]["labels"].values())


@each_values
def test_lint_finds_nothing(given: Object) -> None:
    done = helm("lint", "--strict", str(CHART), given=given)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout


@each_values
def test_the_master_understands_its_command_and_finds_its_files(given: Object) -> None:
    pod = one(render(given), "Job")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"][:3] == ["python", "-m", "antinfer.master"]
    parsed = vars(_parse(container["command"][3:]))
    mounted = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    files = {f"{mounted[volume['name']]}/{item['path']}" for volume in pod["volumes"] for item in items_of(volume)}
    assert {str(value) for value in parsed.values() if isinstance(value, Path)} == files
    assert str(parsed["base_dir"]) == mounted["code"]
    assert pod["serviceAccountName"] == ("master" if given is EXISTING else one(render(given), "ServiceAccount")["metadata"]["name"])


def items_of(volume: Object) -> list[Object]:
    if volume["name"] == "code":
        return []
    sources = volume.get("projected", {}).get("sources") or [volume]
    return [item for each in sources for item in (each.get("configMap") or each.get("secret") or {}).get("items", ())]


def settings_of(rendered: list[Object]) -> KubernetesSettings:
    return KubernetesSettings(**json.loads(one(rendered, "ConfigMap")["data"]["kubernetes.json"]))


@each_values
@pytest.mark.parametrize("worker_class", [PREEMPTIBLE, PROTECTED])
def test_its_settings_make_workers(given: Object, worker_class: str) -> None:
    settings = settings_of(render(given))
    pod = worker_pod(settings, WorkerOrder("w-1", worker_class, memory_bytes=1 << 30), job="j", master=settings.master)
    kinds = {each.kind: each for each in RESOURCES}
    check(kinds["Pod"], pod, strict=True)
    (container,) = pod["spec"]["containers"]
    assert {each["name"] for each in container["volumeMounts"]} == {each["name"] for each in pod["spec"]["volumes"]}
    master = container["args"][container["args"].index("--master") + 1]
    assert master == f"{one(render(given), 'Service')['metadata']['name']}.batch.svc:7077"


def test_what_is_said_of_workers_reaches_their_pods() -> None:
    settings = settings_of(render(FULL))
    spot = worker_pod(settings, WorkerOrder("w-1", PREEMPTIBLE, memory_bytes=0), job="j", master="")
    kept = worker_pod(settings, WorkerOrder("w-2", PROTECTED, memory_bytes=0), job="j", master="")
    for pod in (spot, kept):
        (container,) = pod["spec"]["containers"]
        assert container["resources"] == {"limits": {"nvidia.com/gpu": 1}}
        assert container["imagePullPolicy"] == "Always"
        assert {"key": "gpu"} in pod["spec"]["tolerations"] and len(pod["spec"]["tolerations"]) == 3
        assert pod["spec"]["imagePullSecrets"] == [{"name": "registry"}]
        assert pod["metadata"]["labels"]["team"] == "x" and pod["metadata"]["annotations"] == {"owner": "y"}
        assert pod["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "batch"
    assert spot["spec"]["nodeSelector"] == {"pool": "spot"} and "nodeSelector" not in kept["spec"]
    assert kept["metadata"]["labels"]["c"] == "d"


def test_labels_and_annotations_are_on_everything() -> None:
    rendered = render(FULL)
    pods = [each["spec"]["template"] for each in rendered if each["kind"] in ("Job", "StatefulSet")]
    assert len(pods) == 2
    for each in [*rendered, *pods]:
        assert each["metadata"]["labels"]["team"] == "x", each
        assert each["metadata"]["annotations"]["owner"] == "y", each
    job = one(rendered, "Job")
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "batch"
    assert "kueue.x-k8s.io/queue-name" not in job["spec"]["template"]["metadata"]["labels"]
    assert one(rendered, "ServiceAccount")["metadata"]["annotations"] == {"owner": "y", "iam": "role"}


def test_the_master_reaches_what_its_urls_name() -> None:
    file = {
        **FILE,
        "source": {**FILE["source"], "path": "sftp://user@host/in", "options": {"endpoint_url": "http://minio:9000"}},
        "sink": {"path": "hdfs://namenode:8020/out"},
    }
    given = values(job={"file": file}, store={"url": "rediss://user:pw@redis:7000/0"}, networkPolicy={"egress": [12345]})
    (_, others) = one(render(given), "NetworkPolicy", "-master")["spec"]["egress"]
    wanted = master_ports([json.dumps(file)], "rediss://user:pw@redis:7000/0", [12345])
    assert sorted(each["port"] for each in others["ports"]) == wanted
    assert {8020, 22, 9000, 7000, 12345} <= set(wanted)


def test_secrets_are_in_the_secret_alone() -> None:
    file = {**FILE, "source": {**FILE["source"], "options": {"storage": {"secret_key": "hush-1"}}}}
    rendered = render(values(job={"file": file}, store={"url": "redis://:hush-2@redis"}))
    secret = one(rendered, "Secret")
    assert "hush-1" in secret["stringData"]["job.json"] and "hush-2" in secret["stringData"]["store-url"]
    hidden = [text for key, text in secret["stringData"].items() if not key.endswith(".crt")]
    others = [yaml.safe_dump(each) for each in rendered if each is not secret]
    assert not any(text in other for other in others for text in [*hidden, "hush-1", "hush-2"])
    assert "job.json" not in one(rendered, "ConfigMap")["data"]


def test_what_changes_the_pod_or_what_it_reads_changes_the_print() -> None:
    prints = {
        print_of(one(render(given), "Job"))
        for given in (
            VALUES,
            values(labels={}),
            values(image={**VALUES["image"], "tag": "2"}),
            values(code={"files": CODE}),
            values(workers={"graceSeconds": 31}),
        )
    }
    assert len(prints) == 4


def test_the_print_tells_nothing_of_secrets_but_follows_the_rest() -> None:
    def job(**source: Any) -> str:
        file = {**FILE, "source": {**FILE["source"], **source}}
        return print_of(one(render(values(job={"file": file, "private": True})), "Job"))

    first, other = ({"storage": {"secret_key": key}} for key in "ab")
    assert job(options=first) == job(options=other)
    assert job(options=first) != job(options=first, columns=["id"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"imag": {}}, "Additional property imag is not allowed"),
        ({"workers": {"gracSeconds": 3}}, "workers: Additional property gracSeconds"),
        ({"workers": {"graceSeconds": "long"}}, "workers.graceSeconds: Invalid type"),
        ({"workers": {"template": {"specs": {}}}}, "workers.template: Additional property specs"),
        ({"job": {"file": {**FILE, "pipelin": []}}}, "job.file: Additional property pipelin"),
        ({"job": {"file": {**FILE, "workers": {"ondemand": 1}}}}, "job.file.workers: Additional property ondemand"),
        ({"job": {"file": {**FILE, "pipeline": [{"map_batch": "a:b"}]}}}, "job.file.pipeline.0: Additional property map_batch"),
        ({"job": {"file": {**FILE, "store": {"url": "redis://:pw@r"}}}}, "job.file.store: Additional property url"),
        ({"job": {"file": {**FILE, "sink": {"path": "output"}}}}, "job.file.sink.path"),
        ({"job": {"file": {"sink": FILE["sink"]}}}, "job.file.source is missing"),
        ({"job": {"file": {}}}, "job.file.source is missing"),
        ({"job": {"existingConfigMap": "there"}}, "job.output is missing"),
        ({"job": {"file": FILE, "existingConfigMap": "there", "output": "/o"}}, "give job.file or job.existingConfigMap"),
        ({"image": {}}, "image.repository is missing"),
        ({"image": {**VALUES["image"], "digest": "sha256:1"}}, "image.digest"),
        ({"labels": {"antinfer.io/job": "mine"}}, "antinfer.io/job"),
        ({"store": {"url": "http://redis"}}, "store.url"),
        ({"store": {"url": "redis://r"}, "valkey": {"enabled": True}}, "a job has one store"),
        ({"store": {"existing": True}}, "store.existing is about secret.existing"),
        ({"secret": {"existing": "s"}, "store": {"url": "redis://r"}}, "set store.existing"),
        ({"secret": {"serverName": "m"}}, "secret.serverName is about"),
        ({"networkPolicy": {"egress": [70_000]}}, "networkPolicy.egress.0"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_values_that_are_no_good_are_named(changes: Object, said: str) -> None:
    assert said in refusal(values(**changes))


def test_every_value_has_a_schema_and_every_schema_a_value() -> None:
    def paths(schema: Object, at: str = "") -> set[str]:
        found = set()
        for name, inside in schema.get("properties", {}).items():
            found |= paths(inside, f"{at}{name}.") if "properties" in inside else {at + name}
        return found

    def leaves(given: Object, at: str = "") -> set[str]:
        found = set()
        for name, value in given.items():
            found |= leaves(value, f"{at}{name}.") if isinstance(value, dict) and value and name != "resources" else {at + name}
        return found

    schema = json.loads((CHART / "values.schema.json").read_text())
    assert paths(schema) - {"global"} == leaves(yaml.safe_load((CHART / "values.yaml").read_text()))


def test_its_versions_are_ours() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((CHART.parents[2] / "pyproject.toml").read_text())["project"]
    assert chart["appVersion"] == project["version"]
