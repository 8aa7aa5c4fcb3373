"""Weights of models: fetched once per machine and user, whoever asks for them."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import posixpath
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from antinfer.errors import InfraError, SourceError, UserCodeError
from antinfer.storage.cache import cache_dir
from antinfer.storage.filesystems import Location, canonical_uri, explain, locate

_LOG = logging.getLogger("antinfer.predictors")
_CHUNK_BYTES = 8 << 20


def fetch(uri: str, cache: Path | None = None) -> Path:
    """Return a local file with the contents of `uri`: itself when it is local, otherwise a copy under the user's cache folder.

    Processes of one machine that want the same file fetch it once: the others wait. An object that was replaced is fetched again. While the
    storage cannot be asked, the copy that was found to be the newest one last is used, with a warning.

    Raises:
        SourceError: There is no such file, or it cannot be read.
        InfraError: The storage cannot be reached, and there is no copy.
    """
    copies = cache_dir() / "weights" if cache is None else cache
    newest = copies / f"{_hashed(canonical_uri(uri))}.newest"
    try:
        place, info = _look_up(uri)
    except InfraError as error:
        copy = _copy_of(newest)
        if copy is None:
            raise
        _LOG.warning("%s; the copy that was fetched before is used: %s", error, copy, extra={"action": "weights"})
        return copy
    if place.is_local:
        return Path(place.path)
    folder = copies / _hashed(json.dumps([place.uri, info.size, info.mtime_ns]))
    made = folder / posixpath.basename(place.path)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w", encoding="utf-8") as lock:
        # Given back by the kernel, however this process ends.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            _download(place, info.size, made)
        if _copy_of(newest) != made:
            note = folder / ".newest"
            note.write_text(f"{folder.name}/{made.name}", encoding="utf-8")
            os.replace(note, newest)
    return made


def load_state(uri: str) -> dict[str, Any]:
    """Read a state dict, from ``.safetensors`` or from what ``torch.save`` wrote, without running code from the file.

    Raises:
        UserCodeError: The file holds something else, or the package safetensors is missing.
        SourceError: As `fetch`.
        InfraError: As `fetch`.
    """
    import torch

    path = fetch(uri)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            found: Any = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except ImportError as error:
        raise UserCodeError(f"weights {uri} need the package safetensors", hint="pip install safetensors.") from error
    except Exception as error:
        raise UserCodeError(
            f"cannot load the weights {uri}: {error}", hint="They must be a state dict: torch.save(model.state_dict(), path)."
        ) from error
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict):
        raise UserCodeError(f"the weights {uri} are a {type(found).__name__}, not a state dict")
    return found


def _look_up(uri: str) -> tuple[Location, Any]:
    """Return where the file `uri` is, and what its storage says of it. Raises as `fetch`."""
    place = locate(uri)
    try:
        info = place.filesystem.get_file_info(place.path)
    except (OSError, pa.ArrowException) as cause:
        raise explain(cause, uri, "read") from cause
    if info.type != pafs.FileType.File:
        what = "it does not exist" if info.type == pafs.FileType.NotFound else "it is no file"
        raise SourceError(f"cannot read the weights {uri}: {what}")
    return place, info


def _copy_of(newest: Path) -> Path | None:
    """Return the copy that the note `newest` names; None when there is no note, or the copy is gone."""
    try:
        copy = newest.parent / newest.read_text(encoding="utf-8")
    except OSError:
        return None
    return copy if copy.is_file() else None


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _download(place: Location, size: int, target: Path) -> None:
    descriptor, made = tempfile.mkstemp(dir=target.parent, prefix=".part-")
    try:
        with open(descriptor, "wb") as file, place.filesystem.open_input_stream(place.path) as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                file.write(chunk)
            written = file.tell()
        if written != size:
            raise SourceError(f"{place.uri} changed while it was fetched: {written} bytes instead of {size}")
        os.replace(made, target)
    except (OSError, pa.ArrowException) as cause:
        os.unlink(made)
        raise explain(cause, place.uri, "fetch") from cause
    except BaseException:
        os.unlink(made)
        raise
