"""Turns what the operating system says into an `OutputError` that names the place, the cause and the way out."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from antinfer.errors import OutputError
from antinfer.storage import layout

_CAUSES: Final[dict[int, tuple[str, str]]] = {
    errno.EACCES: ("permission denied", "Give this user write permission there, or choose another output."),
    errno.EPERM: ("operation not permitted", "Give this user write permission there, or choose another output."),
    errno.EROFS: ("the file system is read-only", "Choose an output on a writable file system."),
    errno.ENOSPC: (
        "no space left on the device",
        "Free some space: a job that runs goes on by itself, one that has stopped resumes by the same command.",
    ),
    errno.EDQUOT: ("the disk quota is used up", "Free some space: a job that runs goes on by itself, one that has stopped resumes."),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "Choose another output."),
    errno.EEXIST: ("a file is in the place of a folder", "Choose another output."),
    errno.ENOENT: ("the path does not exist", "Was the output removed while the job ran?"),
    errno.ELOOP: ("the path has a loop of symbolic links", "Choose another output."),
    errno.ENAMETOOLONG: ("the path is too long", "Choose a shorter output path."),
    errno.EMFILE: ("too many files are open", "Raise the limit with `ulimit -n`."),
    errno.EIO: ("the device reports an input/output error", "Check the disk and the kernel's log."),
    errno.ESTALE: ("the network file system lost the file", "Check the mount."),
}
_REFUSED: Final = frozenset(
    (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG)
)
_SPOOL: Final = f"/{layout.folder(layout.SPOOL)}/"
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class Told(NamedTuple):
    """What an error of a store's client means."""

    cause: str
    hint: str
    lasting: bool
    """Trying again does not help until somebody acts."""
    full: bool

    def output_error(self, place: str, doing: str) -> OutputError:
        message = f"output {place}: {doing}: {self.cause}"
        return OutputError(message, hint=self.hint, lasting=self.lasting, full=self.full, remote=True)

    def input_error(self) -> OSError:
        """Return what readers of input understand: ConnectionError for what may pass."""
        return (PermissionError if self.lasting else ConnectionError)(self.cause)


def output_error(error: OSError, place: str, doing: str) -> OutputError:
    """Describe `error`, met at output place `place` while `doing` (for instance "staging 1-2.0.0-10.ab")."""
    cause, hint = _CAUSES.get(error.errno or 0, (error.strerror or str(error), ""))
    # Of a file on its way into a local place nobody wants to know the name: it is another each time.
    place = place.partition(_SPOOL)[0]
    where = f" ({error.filename})" if error.filename and error.filename != place else ""
    return OutputError(f"output {place}: {doing}: {cause}{where}", hint=hint, lasting=error.errno in _REFUSED, full=error.errno in _FULL)


@contextmanager
def wrapped(place: str, doing: str) -> Iterator[None]:
    """Raise `OutputError` instead of any OSError of the block."""
    try:
        yield
    except OSError as error:
        raise output_error(error, place, doing) from error
