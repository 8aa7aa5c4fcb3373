"""No secret of a job is to be found anywhere but where it belongs: in the Secret, and in the files of the pods that it is for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("paramiko")
pytest.importorskip("asyncssh")

from antinfer.testing.chaos.servers import ValkeyServer, valkey
from tests.integration.jobs import command_line
from tests.integration.sftp import OPTIONS, sftp_server
from tests.k8s.double.cluster import Cluster
from tests.k8s.double.kinds import RESOURCES, SECRETS
from tests.k8s.double.kubelet.volumes import contents_of
from tests.k8s.double.nodes import Node
from tests.k8s.double.objects import name_of
from tests.k8s.jobs import ENV
from tests.k8s.scenes import log_of
from tests.k8s.submitted import is_complete, pods, submit, wait, write_job

PASSWORD = "correct-horse-battery"
STORAGE = str(OPTIONS["password"])


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster([Node("n1"), Node("n2")], env=ENV) as cluster:
        yield cluster


def secret_values(cluster: Cluster) -> dict[str, bytes]:
    """What must not be seen, by what it is; of keys one line from the middle."""
    (found,) = [each for each in cluster.store.each(SECRETS) if name_of(each).startswith("antinfer-")]
    data = contents_of(SECRETS, found)
    values = {key: data[key] for key in ("token", "admin-token")}
    values |= {key: content.splitlines()[1] for key, content in data.items() if key.endswith(".key")}
    assert len(values) == 5 and all(len(value) > 30 for value in values.values())
    assert PASSWORD.encode() in data["store-url"] and STORAGE.encode() in data["job.json"]
    return {**values, "password of the store": PASSWORD.encode(), "password of the storage": STORAGE.encode()}


def leaks(values: dict[str, bytes], texts: dict[str, bytes]) -> dict[str, list[str]]:
    """What is seen where."""
    found = {where: [what for what, value in values.items() if value in text] for where, text in texts.items()}
    return {where: what for where, what in found.items() if what}


def files_in(folder: Path) -> dict[str, bytes]:
    """All files below `folder`, as far as they stay there while we look, but for what is mounted from the Secret."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and path.parent.name != "secret":
            try:
                found[str(path)] = path.read_bytes()
            except FileNotFoundError:
                continue
    return found


def processes(cluster: Cluster) -> dict[str, bytes]:
    """The command lines and variables of all first processes in pods."""
    names = [(name_of(pod), who) for who in ("master", "worker") for pod in pods(cluster, who)]
    ids = {name: cluster.process_id(name, who) for name, who in names}
    return {f"{what} of {name}": Path(f"/proc/{pid}/{what}").read_bytes() for name, pid in ids.items() for what in ("cmdline", "environ")}


def objects(cluster: Cluster) -> dict[str, bytes]:
    found = [version.obj for resource in RESOURCES if resource is not SECRETS for version in cluster.store.everything(resource, "")]
    return {f"{each['kind']} {name_of(each)}": json.dumps(each).encode() for each in found}


def mounted(cluster: Cluster) -> dict[str, int]:
    """What is mounted from the Secret in any pod, with its mode."""
    return {path.name: path.stat().st_mode & 0o777 for path in cluster.root.rglob("volumes/secret/*")}


def trouble(cluster: Cluster, store: ValkeyServer) -> None:
    """Let the master complain about its store."""
    store.restart()
    name = name_of(pods(cluster, "master")[0])
    wait(cluster, lambda: "the store redis" in log_of(cluster, name, "master"), "the master to complain")


def test_no_secret_is_anywhere_but_in_its_place(cluster: Cluster, tmp_path: Path) -> None:
    job = tmp_path / "job"
    remote = tmp_path / "remote"
    output = str(remote / "out")
    with (
        sftp_server(remote) as storage,
        valkey(tmp_path / "store", user=f"clerk;on;>{PASSWORD};~antinfer:*;&*;+@all") as store,
    ):
        sink = {"path": f"{storage.uri}/out", "row_ids": True, "options": {"storage": OPTIONS}}
        scoring, _ = write_job(job, pause_s=0.003, sink=sink)
        assert STORAGE in (job / "job.yaml").read_text()
        url = f"redis://clerk:{PASSWORD}@127.0.0.1:{store.port}/0"
        said = [submit(cluster, job, "--store", url, "--dry-run"), submit(cluster, job, "--store", url)]
        values = secret_values(cluster)
        wait(cluster, lambda: list(remote.glob("out/part-*")), "a part")
        trouble(cluster, store)
        seen = {**processes(cluster), **objects(cluster), **files_in(cluster.root)}
        modes = mounted(cluster)
        wait(cluster, lambda: is_complete(cluster), "the end of the job")
    (job / "job.yaml").unlink()  # the user's own
    scoring.assert_right(Path(output))
    said += [command_line("events", output, "--lines"), command_line("story", output, "0"), command_line("verify", output, "--json")]
    assert all(each.returncode == 0 and each.stdout for each in said), said
    told = {f"command {index}": (each.stdout + each.stderr).encode() for index, each in enumerate(said)}
    for looked_at in (seen, told, objects(cluster), files_in(job), files_in(remote)):
        assert looked_at
        assert leaks(values, looked_at) == {}
    assert {"master.key", "worker.key", "token", "store-url", "job.json"} <= modes.keys()
    assert "admin.key" not in modes, "what people show the master is in no pod"
    assert set(modes.values()) == {0o440}, "0400, and the group of the pod reads them"
    assert any(b"--store-file" in text for text in seen.values()) and any(b"the store redis" in text for text in seen.values())
