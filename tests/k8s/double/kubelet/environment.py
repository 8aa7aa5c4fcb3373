"""What a container's process gets: its variables, its command, and paths that lead where its volumes are.

Containers see their volumes under their mount paths; processes of the double see the same file system as everyone. So every mount
path that stands at the beginning of a path in the command, the arguments, the values of variables or the working directory is
replaced by the folder of its volume. `DOUBLE_MOUNTS` tells a program the table (JSON: mount path to folder).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.k8s.double import quantities
from tests.k8s.double.objects import Object, dig, name_of

_REFERENCE: Final = re.compile(r"\$(\$|\(([A-Za-z_.][-A-Za-z0-9_.]*)\))")


class NotConfigured(Exception):
    """A container refers to something that is not there; the message is the kubelet's."""


@dataclass(frozen=True)
class Image:
    """What an image brings along: the command it starts without one of the container's, its variables and working directory."""

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    working_dir: str = ""


def field_value(pod: Object, path: str) -> str:
    """A field of a pod as the downward API gives it."""
    found = re.fullmatch(r"metadata\.(labels|annotations)\['([^']+)'\]", path)
    if found:
        return str(dig(pod, "metadata", found.group(1), default={}).get(found.group(2), ""))
    if path in ("metadata.labels", "metadata.annotations"):
        pairs = dig(pod, "metadata", path.split(".")[1], default={})
        return "\n".join(f"{key}={json.dumps(value)}" for key, value in sorted(pairs.items()))
    return str(dig(pod, *path.split("."), default=""))


def resource_value(container: Object, resource: str) -> str:
    """A limit or request of a container, in whole units."""
    kind, _, name = resource.partition(".")
    amount = quantities.parse(dig(container, "resources", kind, name, default="0"))
    return str(-(-amount.numerator // amount.denominator))


def expand(text: str, variables: Mapping[str, str]) -> str:
    """`$(NAME)` replaced by a variable that is known; `$$` is a dollar."""

    def value(match: re.Match[str]) -> str:
        if match.group(1) == "$":
            return "$"
        return variables.get(match.group(2), match.group(0))

    return _REFERENCE.sub(value, text)


def mounts_of(container: Object, volumes: Mapping[str, Path], variables: Mapping[str, str]) -> dict[str, Path]:
    """Where each mount path of a container leads."""
    mounts = {}
    for mount in container.get("volumeMounts") or []:
        folder = volumes[mount["name"]]
        below = mount.get("subPath") or expand(mount.get("subPathExpr") or "", variables)
        if below:
            folder = folder / below
            if not folder.exists():
                folder.mkdir(parents=True)
        mounts[mount["mountPath"].rstrip("/")] = folder
    return mounts


def rewrite(text: str, mounts: Mapping[str, Path]) -> str:
    """`text` with every mount path in it, where a path begins, replaced by its folder; the longest counts."""
    if not mounts:
        return text
    listed = "|".join(re.escape(path) for path in sorted(mounts, key=len, reverse=True))
    return re.sub(rf"(?<![\w.\-/])({listed})(?![\w.\-])", lambda match: str(mounts[match.group(1)]), text)


@dataclass(frozen=True)
class Launch:
    """What to execute, and how."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path


def launch_of(
    container: Object, image: Image, variables: Mapping[str, str], base: Mapping[str, str], volumes: Mapping[str, Path], home: Path
) -> Launch:
    """Put together what a container runs. `variables` are its own (already resolved), `base` what every container has.

    Raises `NotConfigured` for a container without a command whose image has none.
    """
    mounts = mounts_of(container, volumes, variables)
    command = container.get("command") or list(image.entrypoint)
    arguments = container.get("args") or ([] if container.get("command") else list(image.cmd))
    argv = tuple(rewrite(expand(each, variables), mounts) for each in [*command, *arguments])
    if not argv:
        raise NotConfigured("no command specified")
    env = {**base, "HOME": str(home), "DOUBLE_MOUNTS": json.dumps({path: str(folder) for path, folder in mounts.items()})}
    if "/tmp" in mounts:
        env["TMPDIR"] = str(mounts["/tmp"])
    env.update({name: rewrite(value, mounts) for name, value in {**image.env, **variables}.items()})
    folder = container.get("workingDir") or image.working_dir
    return Launch(argv, env, Path(rewrite(folder, mounts)) if folder else home)


def host_name(pod: Object) -> str:
    return str(dig(pod, "spec", "hostname", default=name_of(pod)))
