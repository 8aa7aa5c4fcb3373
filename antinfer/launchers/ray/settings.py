"""How workers are made as Ray actors: what the job and its user say, as one document for whoever starts them. Pure but for user code."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from antinfer.core.scaling.values import CLASSES, PREEMPTIBLE, PROTECTED
from antinfer.errors import JobFileError
from antinfer.spec.forms import parse_size
from antinfer.spec.near import did_you_mean
from antinfer.spec.normal import all_stages

if TYPE_CHECKING:
    from antinfer.launchers.certificates import Certificates
    from antinfer.spec.schema import JobSpec
    from antinfer.spec.stages import StageSpec

WORKER: Final = "worker"
"""Name under which the user says what all actors get; what is said of one class comes after."""
SERVER_NAME: Final = "master.antinfer"
"""Name of the master in its certificate: its address is known late, and by several names."""
TEMPLATES: Final = (WORKER, *CLASSES)
_OPTIONS: Final = ("num_cpus", "num_gpus", "memory", "resources", "accelerator_type", "label_selector", "runtime_env")
"""What may be said of an actor, in Ray's own words."""


@dataclass(frozen=True, slots=True)
class RaySettings:
    """What actors need to know, beside their names."""

    master: str
    """Where workers find the master."""
    token: str = field(repr=False)
    """Token that the master asks for."""
    ca: str
    """Authority (PEM) of the job, which vouches for the master as `SERVER_NAME`."""
    cert: str
    """Certificate (PEM) of its workers."""
    key: str = field(repr=False)
    """Its key."""
    output: str
    """URI of the output place."""
    base_dir: str
    """Folder of the user code on the machine of the master."""
    code: Mapping[str, str]
    """The user's source files, by path relative to that; what is no UTF-8 is escaped as by ``surrogateescape``."""
    options: Mapping[str, Mapping[str, Any]]
    """What Ray is asked for, for a worker of each class."""
    grace_s: float = 25.0
    """Time that a worker has to leave in order."""
    verbose: bool = False
    antinfer: str = ""
    """Version of the package."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> RaySettings:
        """Read what `to_json` wrote. Raises `JobFileError` where another version of this package wrote it."""
        data = json.loads(text)
        here = version("antinfer")
        if data["antinfer"] != here:
            raise JobFileError(
                f"antinfer {here} is installed here, and {data['antinfer']} where the job was started",
                hint="Install the same version on all nodes of the cluster.",
            )
        return cls(**data)


def ray_settings(
    spec: JobSpec,
    laid_over: Mapping[str, Mapping[str, Any]],
    *,
    master: str,
    token: str,
    certificates: Certificates,
    output: str,
    verbose: bool,
) -> RaySettings:
    """Return the settings for a job.

    Args:
        spec: the job.
        laid_over: what the user says about actors, by `TEMPLATES`.
        master: where workers find the master.
        token: that it asks for.
        certificates: of the job.
        output: URI of the output place.
        verbose: workers say more.

    Raises:
        JobFileError: The user says something that actors do not have.
        UserCodeError: User code cannot be read.
    """
    identity = certificates.identities["worker"]
    return RaySettings(
        master=master,
        token=token,
        ca=certificates.ca.decode(),
        cert=identity.cert.decode(),
        key=identity.key.decode(),
        output=output,
        base_dir=spec.base_dir,
        code=_code(spec),
        options=actor_options(spec, laid_over),
        verbose=verbose,
        antinfer=version("antinfer"),
    )


def actor_options(spec: JobSpec, laid_over: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return what Ray is asked for, by class of worker as far as there are any: what a copy of each stage needs, unless the user says so.

    Raises `JobFileError` for what Ray does not know.
    """
    checked = {name: _checked(name, laid_over.get(name, {})) for name in TEMPLATES}
    used = {PROTECTED: spec.workers.on_demand > 0, PREEMPTIBLE: spec.workers.on_demand < 1}
    return {name: _asked(spec, name) | checked[WORKER] | checked[name] for name in CLASSES if used[name]}


def request_of(options: Mapping[str, Any]) -> dict[str, float]:
    """Return the amounts that a node must have for an actor of these options, by the names that Ray gives to resources."""
    named = {"CPU": options.get("num_cpus"), "GPU": options.get("num_gpus"), "memory": options.get("memory")}
    return {name: amount for name, amount in {**named, **(options.get("resources") or {})}.items() if amount}


# -- inside ---------------------------------------------------------------------------------------------------------------------------
def _asked(spec: JobSpec, worker_class: str) -> dict[str, Any]:
    about = getattr(spec.workers.classes, worker_class)
    stages = list(all_stages(spec.pipeline))
    cpus = sum(stage.num_cpus * _copies(stage) for stage in stages if stage.target)
    gpus = sum(stage.num_gpus * _copies(stage) for stage in stages)
    asked: dict[str, Any] = {"num_cpus": _whole(max(1.0, cpus))}
    if gpus:
        asked["num_gpus"] = _whole(max(gpus, about.gpus))
    if about.memory:
        asked["memory"] = about.memory
    return asked


def _copies(stage: StageSpec) -> int:
    """Return how many copies of a stage there are at least."""
    if stage.concurrency == "auto":
        return 1
    return stage.concurrency if isinstance(stage.concurrency, int) else stage.concurrency[0]


def _whole(amount: float) -> float:
    """Return an amount as Ray takes it: above one only whole ones."""
    return math.ceil(amount) if amount > 1 else amount


def _checked(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    for key in options:
        if key not in _OPTIONS:
            raise JobFileError(f"{name}: {key!r} is not one of {', '.join(_OPTIONS)}{did_you_mean(key, _OPTIONS)}")
    found = dict(options)
    if found.get("memory") is not None:
        try:
            found["memory"] = parse_size(found["memory"])
        except ValueError as error:
            raise JobFileError(f"{name}: memory: {error}") from error
    return found


def _code(spec: JobSpec) -> dict[str, str]:
    """Return the user's files below the folder of the job file; what lies elsewhere is taken from the same place on each node."""
    from antinfer.spec.codeprint import code_files

    inside = [path for path in code_files(spec) if not path.startswith("..") and not os.path.isabs(path)]
    return {path: Path(spec.base_dir, path).read_bytes().decode("utf-8", "surrogateescape") for path in inside}
