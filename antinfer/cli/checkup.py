"""``doctor``: is everything here that a job needs?"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import typer

from antinfer.cli import render
from antinfer.errors import AntinferError
from antinfer.telemetry import figures

Verdict = Literal["ok", "warning", "missing"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    verdict: Verdict
    detail: str
    hint: str = ""


def doctor(job: Path | None, *, store: str, as_json: bool) -> None:
    findings = [_python(), _cores(), _memory(), *_packages(), _gpu(), _store(store)]
    if job is not None:
        findings += _job(job)
    if as_json:
        render.as_json({"findings": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            typer.echo(f"{finding.verdict:<8} {finding.what:<14} {finding.detail}")
            if finding.hint and finding.verdict != "ok":
                typer.echo(f"{'':<24}hint: {finding.hint}")
    if any(finding.verdict == "missing" for finding in findings):
        sys.exit(1)


def _python() -> Finding:
    here = f"{platform.python_version()} at {sys.executable}, {platform.platform(terse=True)}"
    if not (3, 11) <= sys.version_info[:2] <= (3, 13) or sys.platform != "linux":
        return Finding("python", "missing", here, "antinfer runs on Linux with Python 3.11 to 3.13")
    return Finding("python", "ok", here)


def _cores() -> Finding:
    return Finding("cores", "ok", f"{len(os.sched_getaffinity(0))} usable of {os.cpu_count()}")


def _memory() -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    verdict: Verdict = "ok" if total >= 2 << 30 else "warning"
    return Finding("memory", verdict, figures.size(total), "queues between stages want about 1 GiB a worker")


def _packages() -> list[Finding]:
    needed = {"pyarrow": "", "numpy": "", "grpcio": "", "protobuf": "", "redis": "", "pydantic": ""}
    extras = {
        "torch": "torch",
        "boto3": "s3",
        "google-cloud-storage": "gcs",
        "hdfs-native": "hdfs",
        "paramiko": "sftp",
        "kubernetes": "kubernetes",
        "ray": "ray",
    }
    optional = {name: f"antinfer[{extra}]" for name, extra in extras.items()}
    return [_package(name, extra, name in needed) for name, extra in {**needed, **optional}.items()]


def _package(name: str, extra: str, is_needed: bool) -> Finding:
    try:
        return Finding(name, "ok", version(name))
    except PackageNotFoundError:
        return Finding(
            name, "missing" if is_needed else "ok", "not installed" + (f" (optional: {extra})" if extra else ""), "pip install antinfer"
        )


def _gpu() -> Finding:
    if shutil.which("nvidia-smi") is None:
        return Finding("gpu", "ok", "none found (nvidia-smi is not there): only predictors with num_gpus: 0 can run here")
    import subprocess

    asked = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    found = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=False)
    if found.returncode != 0:
        return Finding("gpu", "warning", found.stderr.strip() or "nvidia-smi fails", "check the driver")
    return Finding("gpu", "ok", "; ".join(found.stdout.strip().splitlines()))


def _store(url: str) -> Finding:
    from antinfer.master.store.checkup import describe_store

    return _attempt("store", lambda: describe_store(url))


def _job(path: Path) -> list[Finding]:
    from antinfer.launchers.gpus import visible_gpus
    from antinfer.launchers.local.supervisor import default_workers
    from antinfer.spec import devices
    from antinfer.spec.load import load_job
    from antinfer.spec.normal import all_stages
    from antinfer.spec.usercode import resolve
    from antinfer.storage.forecast import forecast
    from antinfer.storage.jobs import open_output

    try:
        spec = load_job(path)
    except AntinferError as error:
        return [Finding("job file", "missing", str(error), error.hint)]

    def code() -> str:
        targets = [target for stage in all_stages(spec.pipeline) for target in (stage.target, stage.on_gpu) if target]
        for target in targets:
            resolve(target, spec.base_dir)
        return ", ".join(targets)

    def shares() -> str:
        if not any(stage.num_gpus for stage in all_stages(spec.pipeline)):
            return "no stage asks for one"
        gpus, workers = visible_gpus(), default_workers(spec)
        devices.check(spec.pipeline, gpus, workers)
        return f"what the stages ask for fits on {', '.join(gpus)}, {workers} worker{'s' * (workers != 1)}"

    def source() -> str:
        found = forecast(spec)
        return f"{found.files:,} files, {figures.size(found.size_bytes)}, {found.shards:,} shards"

    def sink() -> str:
        open_output(spec).check_writable()
        return f"{spec.sink.path} can be written"

    looks = {"user code": code, "gpu shares": shares, "input": source, "output": sink}
    return [Finding("job file", "ok", str(path)), *(_attempt(what, look) for what, look in looks.items())]


def _attempt(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what, "ok", look())
    except AntinferError as error:
        return Finding(what, "missing", str(error), error.hint)
