"""The images: what is in them and who runs there, by their Dockerfiles; and that what is installed there runs without the source tree."""

from __future__ import annotations

import fnmatch
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest

from antinfer.spec.canonical import to_yaml
from antinfer.testing.chaos.processes import PATIENCE_S
from tests.integration.jobs import Scoring, assert_proven
from tests.packaging.dockerfiles import Dockerfile, copied
from tests.packaging.wheels import ROOT, build_wheel

FOLDER = ROOT / "deploy" / "docker"
FILES = {name: Dockerfile.read(FOLDER / name) for name in ("Dockerfile", "Dockerfile.gpu")}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
INSTALLED = sysconfig.get_paths()["purelib"]

each_file = pytest.mark.parametrize("file", FILES.values(), ids=FILES)


@each_file
def test_the_last_stage_holds_what_was_installed_and_nothing_of_the_context(file: Dockerfile) -> None:
    *_, last = file.stages
    assert len(file.stages) > 1
    assert copied(last) == []
    assert last.all("COPY") == ["--from=build /opt/antinfer /opt/antinfer"]
    assert last.all("RUN") == []


@each_file
def test_nobody_in_particular_runs_there_and_writes_to_tmp_alone(file: Dockerfile) -> None:
    last = file.stages[-1]
    assert last.all("USER") == ["65532:65532"]
    variables = dict(pair.split("=", 1) for pair in " ".join(last.all("ENV")).split())
    assert variables["HOME"] == "/tmp" and last.all("WORKDIR") == ["/tmp"]
    assert variables["PYTHONDONTWRITEBYTECODE"] == "1"
    # Pods name `python`, and must find the one that has the package.
    assert variables["PATH"].split(":")[0] == "/opt/antinfer/bin"
    command = json.loads(last.all("ENTRYPOINT")[0])
    assert command[0] in PROJECT["scripts"]


@each_file
def test_it_says_what_it_is(file: Dockerfile) -> None:
    last = file.stages[-1]
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', " ".join(last.all("LABEL"))))
    assert labels.keys() >= {"title", "description", "licenses", "version", "revision"}
    assert labels["licenses"] == PROJECT["license"]
    assert f"VERSION={PROJECT['version']}" in last.all("ARG")


@each_file
def test_extras_are_an_argument_and_are_ours(file: Dockerfile) -> None:
    build = file.stages[0]
    (extras,) = (each.partition("=")[2] for each in build.all("ARG") if each.startswith("EXTRAS="))
    assert set(extras.split(",")) <= PROJECT["optional-dependencies"].keys()
    assert "kubernetes" in extras.split(",")
    assert any("[${EXTRAS}]" in command for command in build.all("RUN"))


def test_both_files_differ_in_what_they_stand_on_alone() -> None:
    cpu, gpu = FILES.values()
    assert cpu.stages[0].name == gpu.stages[0].name == "build"
    assert copied(cpu.stages[0]) == copied(gpu.stages[0])
    for ours, theirs in zip(cpu.stages[1].instructions, gpu.stages[1].instructions, strict=True):
        assert ours == theirs or ours[0] == theirs[0] == "LABEL"
    assert cpu.stages[0].base == cpu.stages[1].base and gpu.stages[0].base == gpu.stages[1].base
    assert re.fullmatch(r"python:\$\{PYTHON_VERSION\}-slim-\w+", cpu.stages[1].base)
    assert re.search(r"cuda\d", gpu.arguments["BASE"])


def test_the_context_holds_what_is_copied_and_no_more() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    let_in = [line[1:] for line in lines if line.startswith("!")]
    assert sorted(let_in) == sorted(copied(FILES["Dockerfile"].stages[0]))
    left_out = [line for line in lines[1:] if not line.startswith("!")]
    assert any(fnmatch.fnmatch("antinfer/core/__pycache__", pattern) for pattern in left_out)


@pytest.mark.slow
def test_what_is_installed_runs_a_job_without_the_source_tree(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    wheel = build_wheel(copied(FILES["Dockerfile"].stages[0]), source)
    # As in the image, the package alone is new; what it depends on is what this interpreter has, without its way to the source tree.
    venv.create(tmp_path / "installed", with_pip=False)
    (site,) = (tmp_path / "installed" / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(INSTALLED + "\n")
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True)
    shutil.rmtree(source)
    before = set(site.rglob("*"))
    (tmp_path / "home").mkdir()
    environment = {
        "PATH": f"{tmp_path / 'installed' / 'bin'}:/usr/bin:/bin",
        "HOME": str(tmp_path / "home"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }

    def python(*arguments: str) -> str:
        command = ["python", *arguments]
        done = subprocess.run(
            command, cwd=tmp_path / "home", env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert python("-c", "import antinfer; print(antinfer.__file__)").startswith(str(site))
    assert "--kubernetes" in python("-m", "antinfer.master", "--help")
    assert "--grace" in python("-m", "antinfer.worker", "--help")
    scoring = Scoring(tmp_path / "job", shards=4, pause_s=0)
    spec = scoring.make()
    (tmp_path / "job" / "job.yaml").write_text(to_yaml(spec))
    python("-m", "antinfer", "run", str(tmp_path / "job" / "job.yaml"), "--workers", "1")
    scoring.assert_right(Path(spec.sink.path))
    assert_proven(spec)
    assert set(site.rglob("*")) == before, "nothing is written beside the code"
