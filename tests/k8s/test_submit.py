"""``antinfer submit``: what it creates, and whole jobs whose master is a pod as well."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from antinfer.errors import UsageError
from antinfer.launchers.certificates import make_certificates
from antinfer.launchers.kubernetes.api import Api
from antinfer.launchers.kubernetes.jobs import Jobs
from antinfer.launchers.kubernetes.secret import REDACTED, Secrets
from antinfer.launchers.kubernetes.submission import Submission, object_name, objects, server_names
from antinfer.master.jobfile import job_id
from antinfer.testing.chaos.servers import valkey
from tests.integration.jobs import ROOT, assert_proven, command_line
from tests.k8s.double.cluster import Cluster
from tests.k8s.double.nodes import Node
from tests.k8s.double.objects import name_of
from tests.k8s.jobs import ENV
from tests.k8s.rights import limited
from tests.k8s.submitted import COLLECTIONS, is_complete, mine, pods, submit, wait, write_job
from tests.k8s.talk import JOBS, Talk

CERTIFICATES = make_certificates(["m.ns"])
KINDS = [*COLLECTIONS, "NetworkPolicy", "ServiceAccount"]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster([Node("n1"), Node("n2")], env=ENV) as cluster:
        yield cluster


def what(**changes: Any) -> Submission:
    given: dict[str, Any] = {"job": "0123456789abcdef", "title": "Score all!", "document": "{}", "code": {"steps.py": b"pass"}}
    return Submission(**{**given, "image": "i:1", "secrets": Secrets(CERTIFICATES), **changes})


def test_a_dry_run_prints_every_object_and_creates_nothing(cluster: Cluster, tmp_path: Path) -> None:
    write_job(tmp_path)
    done = submit(cluster, tmp_path, "--launcher", "kubernetes", "--dry-run", "-o", "yaml", "--store", "rediss://:pw@redis:6379/0")
    assert done.returncode == 0, done.stderr
    printed = list(yaml.safe_load_all(done.stdout))
    assert sorted(each["kind"] for each in printed) == sorted(KINDS)
    assert "pw@redis" not in done.stdout and "PRIVATE" not in done.stdout
    secret = next(each for each in printed if each["kind"] == "Secret")
    assert set(secret["stringData"].values()) == {REDACTED}
    done = submit(cluster, tmp_path, "--dry-run", "--show-secrets", "--store", "rediss://:pw@redis:6379/0")
    whole = list(yaml.safe_load_all(done.stdout))
    secret = next(each for each in whole if each["kind"] == "Secret")
    assert secret["stringData"]["store-url"] == "rediss://:pw@redis:6379/0"
    private = [value for key, value in secret["stringData"].items() if not key.endswith(".crt")]
    assert len(private) == 6
    others = [yaml.safe_dump(each) for each in whole if each is not secret]
    assert not any(value in text for text in others for value in private)
    assert not mine(cluster)
    for each in whole:
        Talk(cluster.url).create(COLLECTIONS[each["kind"]], each, dryRun="All", fieldValidation="Strict")


def test_a_job_file_is_all_that_a_dry_run_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    done = command_line(*shlex.split("submit examples/flights/job.yaml --launcher kubernetes --dry-run -o yaml"))
    assert done.returncode == 0, done.stderr
    printed = {each["kind"]: each for each in yaml.safe_load_all(done.stdout)}
    image = f"antinfer:{version('antinfer')}"
    assert printed["Job"]["spec"]["template"]["spec"]["containers"][0]["image"] == image
    assert f"note: without --image the pods are shown with {image}" in done.stderr
    done = command_line("submit", "examples/flights/job.yaml")
    assert done.returncode == 2
    assert "the pods need an image" in done.stderr and "--image NAME" in done.stderr


def test_a_job_runs_to_its_end_and_goes_with_all_that_belongs_to_it(cluster: Cluster, tmp_path: Path) -> None:
    scoring, spec = write_job(tmp_path)
    steps = tmp_path / "steps.py"
    steps.write_bytes(b"# coding: latin-1\nNAME = 'caf\xe9'\nassert len(NAME) == 4\n" + steps.read_bytes())
    done = submit(cluster, tmp_path)
    assert done.returncode == 0, done.stderr
    shutil.move(tmp_path / "steps.py", tmp_path / "gone.py")  # the pods have their own
    assert sorted(mine(cluster)) == sorted(COLLECTIONS)
    wait(cluster, lambda: pods(cluster, "worker"), "workers")
    (job,) = mine(cluster)["Job"]
    assert pods(cluster, "worker")[0]["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"]
    wait(cluster, lambda: is_complete(cluster), "the end of the job")
    scoring.assert_right(Path(spec.sink.path))
    assert_proven(spec)
    again = submit(cluster, tmp_path)
    assert again.returncode == 2
    assert "was submitted before" in again.stderr
    Talk(cluster.url).delete(f"{JOBS}/{name_of(job)}", {"propagationPolicy": "Background"})
    cluster.wait(lambda: not mine(cluster) and not pods(cluster, "master"), "everything to go")


@pytest.fixture(params=["of its pod", "of one's own"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, ...]]:
    """The options by which a job is told of its store."""
    if request.param == "of its pod":
        yield ()
        return
    with valkey(tmp_path / "store") as server:
        yield ("--store", server.url)


@pytest.mark.slow
def test_a_master_that_dies_is_followed_by_another_that_keeps_the_workers(tmp_path: Path, store: tuple[str, ...]) -> None:
    # A mounted folder is another path in each pod of the double, and the dead master's is gone: workers have the code in their image.
    env = {**ENV, "PYTHONPATH": f"{ENV['PYTHONPATH']}{os.pathsep}{tmp_path}"}
    scoring, spec = write_job(tmp_path, pause_s=0.005)
    computed = tmp_path / "computed"
    steps = tmp_path / "steps.py"
    call = "def __call__(self, batch):"
    noted = f'with open({str(computed)!r}, "a") as log: print(time.time(), *batch["key"], file=log)'
    steps.write_text(steps.read_text().replace(call, f"{call}\n        {noted}"))
    with Cluster([Node("n1"), Node("n2")], env=env) as cluster:
        assert submit(cluster, tmp_path, *store).returncode == 0
        wait(cluster, lambda: list(Path(spec.sink.path).glob("part-*")), "a part")
        (first,) = pods(cluster, "master")
        before = {name_of(pod) for pod in pods(cluster, "worker")}
        cluster.oom_kill(name_of(first), "master")
        killed = time.time()
        wait(cluster, lambda: len(pods(cluster, "master")) == 2, "another master")
        seen: set[str] = set()
        wait(cluster, lambda: seen.update(map(name_of, pods(cluster, "worker"))) or is_complete(cluster), "the end of the job")
        scoring.assert_right(Path(spec.sink.path))
        assert seen == before, "workers that live are kept"
        if store:
            story = command_line("story", spec.sink.path, "0").stdout
            assert re.search(r"reign 2 began .* from the store ", story), story
            calls = [line.split() for line in computed.read_text().splitlines()]
            early = [key for when, *keys in calls if float(when) < killed for key in keys]
            late = [key for when, *keys in calls if float(when) >= killed for key in keys]
            # At the end a worker hands on rows of which it may have computed a few: only those of the first reign tell what its end cost.
            assert early and not set(early) & set(late) and len(early) == len(set(early)), story


def test_a_namespace_that_is_not_there_is_named(cluster: Cluster, tmp_path: Path) -> None:
    write_job(tmp_path)
    done = submit(cluster, tmp_path, "--namespace", "nowhere")
    assert done.returncode == 2
    assert "there is no namespace nowhere" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_cluster_that_cannot_be_reached_is_named(cluster: Cluster, tmp_path: Path) -> None:
    write_job(tmp_path)
    nowhere = tmp_path / "nowhere"
    nowhere.write_text(cluster.kubeconfig(nowhere).read_text().replace(cluster.url, "http://127.0.0.1:9"))
    done = submit(cluster, tmp_path, "--kubeconfig", str(nowhere))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "the API server at http://127.0.0.1:9 cannot be reached" in done.stderr and "--context" in done.stderr


def test_a_name_that_something_else_has_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    _, spec = write_job(tmp_path)
    name = object_name("score", job_id(spec.sink.path))
    Talk(cluster.url).create(COLLECTIONS["ConfigMap"], {"metadata": {"name": name}})
    done = submit(cluster, tmp_path)
    assert done.returncode == 2
    assert f"ConfigMap {name} is in namespace default already, and belongs to something else" in done.stderr
    cluster.wait(lambda: not mine(cluster), "the rest to go")
    assert Talk(cluster.url).get(f"{COLLECTIONS['ConfigMap']}/{name}")["metadata"]["name"] == name


def test_a_job_that_cannot_be_created_whole_leaves_nothing(cluster: Cluster, tmp_path: Path) -> None:
    write_job(tmp_path)
    cluster.inject("create", "networkpolicies", status=403, message="networkpolicies is forbidden: not you")
    done = submit(cluster, tmp_path)
    assert done.returncode == 2
    assert "NetworkPolicy" in done.stderr and "not you" in done.stderr
    cluster.wait(lambda: not mine(cluster), "the rest to go")


def test_a_right_that_is_missing_is_named_and_what_was_created_goes(cluster: Cluster, tmp_path: Path) -> None:
    write_job(tmp_path)
    jobs = {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create", "delete"]}
    kubeconfig = cluster.kubeconfig(tmp_path / "limited", token=limited(cluster, [jobs]))
    done = submit(cluster, tmp_path, "--kubeconfig", str(kubeconfig))
    assert done.returncode == 2 and "Traceback" not in done.stderr
    right = 'the rule {apiGroups: [""], resources: ["serviceaccounts"], verbs: ["create"]} in a Role in namespace default'
    assert right in done.stderr
    cluster.wait(lambda: not mine(cluster), "the job to go")


def test_user_code_in_any_encoding_comes_back_as_it_was(cluster: Cluster, tmp_path: Path) -> None:
    code = {"steps.py": "NAME = 'café'".encode(), "lib/old.py": b"# coding: latin-1\nNAME = 'caf\xe9'"}
    made = what(code=code)
    config = next(each for each in objects(made) if each["kind"] == "ConfigMap")
    assert len(config["binaryData"]) == 1 and "NAME = 'café'" in config["data"].values()
    Talk(cluster.url).create(COLLECTIONS["ConfigMap"], {**config, "metadata": {"name": made.name}})
    kept = Jobs(Api.connect(str(cluster.kubeconfig(tmp_path / "kubeconfig"))), "default").config_map(made.name)
    assert kept is not None
    assert Submission.restored(kept, "default", made.secrets) == made


def test_user_code_that_is_too_large_is_refused() -> None:
    with pytest.raises(UsageError, match=r"are 1,\d+,\d+ bytes"):
        objects(what(code={"large.py": b"\xff" * 1_000_000}))
    with pytest.raises(UsageError, match=r"a config map holds 1,000,000; the largest file is large\.py"):
        objects(what(code={"small.py": b"1", "large.py": b"#" * 1_000_000}))


def test_user_code_from_elsewhere_is_refused() -> None:
    with pytest.raises(UsageError, match="outside of the folder of the job file"):
        objects(what(code={"../steps.py": b"1"}))


def test_the_master_may_do_nothing_but_look_after_pods_and_workers_nothing_at_all() -> None:
    made = {each["kind"]: each for each in objects(what())}
    accounts = [each["metadata"]["name"] for each in objects(what()) if each["kind"] == "ServiceAccount"]
    template = json.loads(made["ConfigMap"]["data"]["kubernetes.json"])["template"]
    assert accounts == ["antinfer-score-all-012345", template["spec"]["serviceAccountName"]]
    assert [each["name"] for each in made["RoleBinding"]["subjects"]] == accounts[:1]
    assert made["Role"]["rules"] == [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["create", "delete", "get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["events"], "verbs": ["list"]},
        {"apiGroups": ["batch"], "resources": ["jobs"], "resourceNames": ["antinfer-score-all-012345"], "verbs": ["list", "watch"]},
    ]
    spec = made["Job"]["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert all(each["securityContext"]["readOnlyRootFilesystem"] for each in spec["containers"])


def test_each_pod_gets_its_own_part_of_the_secret() -> None:
    made = objects(what(secrets=Secrets(CERTIFICATES, store_url="redis://:pw@s:6379", document="{}")))
    kinds = {each["kind"]: each for each in made}
    spec = kinds["Job"]["spec"]["template"]["spec"]
    (volume,) = [each["secret"] for each in spec["volumes"] if "secret" in each]
    keys = {each["key"] for each in volume["items"]}
    assert keys == {"token", "admin-token", "ca.crt", "master.crt", "master.key", "store-url", "job.json"}
    assert keys < kinds["Secret"]["stringData"].keys()
    assert volume["defaultMode"] == 0o400
    command = spec["containers"][0]["command"]
    assert command[command.index("--listen") + 1] == "0.0.0.0:7077", "forwarded ports lead to the loopback interface of the pod"
    assert command[command.index("--job") + 1] == "/etc/antinfer/secret/job.json"
    assert not any("pw@" in word for word in command)
    plain = objects(what())[0]["spec"]["template"]["spec"]["containers"][0]["command"]
    assert "--store-file" not in plain and plain[plain.index("--job") + 1] == "/etc/antinfer/job/job.json"


def test_credentials_of_the_storage_are_in_the_secret_alone(cluster: Cluster, tmp_path: Path) -> None:
    storage = {"endpoint_url": "http://127.0.0.1:9", "access_key": "known", "secret_key": "tell-nobody"}
    write_job(tmp_path, sink={"path": "s3://bucket/out", "options": {"storage": storage}})
    done = submit(cluster, tmp_path, "--dry-run", "--show-secrets")
    assert done.returncode == 0, done.stderr
    made = {each["kind"]: each for each in yaml.safe_load_all(done.stdout)}
    whole = json.loads(made["Secret"]["stringData"]["job.json"])
    assert whole["sink"]["options"]["storage"] == storage
    public = json.loads(made["ConfigMap"]["data"]["job.json"])
    assert public["sink"]["options"]["storage"] == {"endpoint_url": "http://127.0.0.1:9"}
    assert "tell-nobody" not in submit(cluster, tmp_path, "--dry-run").stdout


def test_who_reaches_whom_is_said() -> None:
    document = '{"sink": {"path": "s3://bucket/x", "options": {"storage": {"endpoint_url": "http://minio:9000"}}}, "a": "http://h/x"}'
    made = objects(what(document=document, egress=(12345,), secrets=Secrets(CERTIFICATES, store_url="rediss://:pw@store:7000/0")))
    master, worker = [each["spec"] for each in made if each["kind"] == "NetworkPolicy"]
    assert master["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "master"
    assert master["policyTypes"] == ["Ingress", "Egress"]
    (rule,) = master["ingress"]
    assert [each["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for each in rule["from"]] == ["worker", "submitter"]
    assert rule["ports"] == [{"port": "grpc"}]
    names, others = master["egress"]
    assert {each["port"] for each in names["ports"]} == {53}
    assert {80, 443, 6443, 7000, 9000, 12345} <= {each["port"] for each in others["ports"]}
    assert (worker["policyTypes"], worker["ingress"]) == (["Ingress"], [])


def test_certificates_of_ones_own_are_used_and_looked_at(cluster: Cluster, tmp_path: Path) -> None:
    _, spec = write_job(tmp_path)
    folder = tmp_path / "certificates"
    folder.mkdir()
    done = submit(cluster, tmp_path, "--certificates", str(folder), "--dry-run", "--show-secrets")
    assert done.returncode == 2
    assert "cannot read" in done.stderr and "ca.crt" in done.stderr
    made = make_certificates(server_names(object_name("score", job_id(spec.sink.path)), "default"))
    (folder / "ca.crt").write_bytes(made.ca)
    for who, identity in made.identities.items():
        (folder / f"{who}.crt").write_bytes(identity.cert)
        (folder / f"{who}.key").write_bytes(identity.key)
    done = submit(cluster, tmp_path, "--certificates", str(folder), "--dry-run", "--show-secrets")
    assert done.returncode == 0, done.stderr
    secret = next(each for each in yaml.safe_load_all(done.stdout) if each["kind"] == "Secret")
    assert secret["stringData"]["worker.key"].encode() == made.identities["worker"].key


def test_what_users_say_about_pods_is_laid_over_ours() -> None:
    spec = {"containers": [{"name": "master", "env": [{"name": "A", "value": "b"}]}], "priorityClassName": "high"}
    made = objects(what(master={"spec": spec, "metadata": {"labels": {"team": "x", "app.kubernetes.io/component": "other"}}}))
    pod = made[0]["spec"]["template"]
    assert pod["spec"]["priorityClassName"] == "high"
    assert {"HOME", "POD_NAME", "A"} == {each["name"] for each in pod["spec"]["containers"][0]["env"]}
    assert pod["metadata"]["labels"] | {"app.kubernetes.io/component": "master", "team": "x"} == pod["metadata"]["labels"]
