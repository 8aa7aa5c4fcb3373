"""The exception tree.

::

    AntinferError
    ├── UserError                      blame: user
    │   ├── UsageError                 wrong command line or call              exit 2
    │   │   └── JobFileError           a field of the job file is wrong        exit 2
    │   ├── UserCodeError              user function raised, or broke its contract
    │   ├── ForeignOutputError         the output place belongs to another job
    │   └── ChangedError               input, job file or code differs from the plan
    ├── DataError                      blame: data
    │   ├── BadRows                    rows that user code names as bad; the rest of their batch goes on
    │   ├── SourceError                unreadable, truncated, missing, empty input
    │   └── SchemaMismatchError        a file or a commit with another schema
    ├── InfraError                     blame: infra
    │   ├── StoreError                 Redis or Valkey: unreachable, refused, full
    │   ├── OutputError                output place: not writable, full
    │   ├── MasterError                no master at that address, or it refuses us
    │   ├── MachineError               this machine cannot do it: memory, device
    │   └── FencedError                a master with a higher epoch rules this job
    ├── InternalError                  blame: internal: a bug of ours
    │   └── InvariantViolation         the ledger is not a partition any more
    ├── VerifyFault                    the audit found a fault                 exit 4
    └── Interrupted                    stopped by the user, resumable          exit 130

Code that meets a foreign exception wraps it once, at the adapter, with ``raise ... from``. The command line prints `str(error)` and
`hint`, and a traceback only for `InternalError` and for a `UserCodeError`'s own `user_traceback`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import ClassVar, Final


class Blame(Enum):
    """Whose fault an error is; decides the budget that pays for it and who has to act."""

    USER = "user"
    DATA = "data"
    INFRA = "infra"
    INTERNAL = "internal"


LAST_LINE: Final = "antinfer: "
"""How the line begins in which a command, a master or a worker says why it has ended."""
_HINT: Final = "\n  hint: "


def split_hint(text: str) -> tuple[str, str]:
    """Return message and hint of `AntinferError.text`; the hint is empty where there is none."""
    message, _, hint = text.partition(_HINT)
    return message, hint


class AntinferError(Exception):
    """Base of every error that antinfer raises on purpose."""

    blame: ClassVar[Blame] = Blame.INTERNAL
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        """What the reader can do about it; one sentence, may be empty."""
        if hint:
            # For callers of the Python API, who see no more than the traceback.
            self.add_note(f"hint: {hint}")

    @property
    def text(self) -> str:
        """Message and hint as one text, as people read it; `split_hint` takes it apart again."""
        return f"{self}{_HINT}{self.hint}" if self.hint else str(self)


class UserError(AntinferError):
    """The user has to change something."""

    blame = Blame.USER


class UsageError(UserError):
    """Wrong command line, wrong call of the Python API."""

    exit_code = 2


class JobFileError(UsageError):
    """A field of the job file is missing, misspelt or has a value that is not allowed."""


class UserCodeError(UserError):
    """A user function could not be imported, raised, or broke its contract."""

    def __init__(self, message: str, *, hint: str = "", user_traceback: str = "", hopeless: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.user_traceback = user_traceback
        """The traceback as the user would have seen it alone; empty when nothing was raised."""
        self.hopeless = hopeless
        """It failed on every row that was seen, which is a mistake in the code only as long as the job has no results."""


class ForeignOutputError(UserError):
    """The output place holds another job's output."""


class ChangedError(UserError):
    """Input, job file or user code is not what the plan was made from."""


class DataError(AntinferError):
    """The input is at fault."""

    blame = Blame.DATA


class BadRows(DataError):
    """Raised by user code on a batch some of whose rows are bad: these go to quarantine, and it is called again with the others.

    Any other exception leads there too, but by halving the batch again and again.
    """

    def __init__(self, errors: Mapping[int, str]) -> None:
        """`errors`: what is wrong, by the row's number in the batch, from 0."""
        super().__init__("; ".join(f"row {row}: {error}" for row, error in list(errors.items())[:3]) or "no row is bad")
        self.errors = dict(errors)


class SourceError(DataError):
    """An input file is missing, unreadable, truncated, or nothing matches the pattern."""


class ColumnError(SourceError):
    """The input has no column that ``source.columns`` names: the job file is at fault, as far as anybody can tell."""

    exit_code = 2


class SchemaMismatchError(DataError):
    """A file has another schema than its siblings, or a result another schema than the first commit froze."""


class InfraError(AntinferError):
    """A machine, a disk, a network or a service is at fault; trying again may help."""

    blame = Blame.INFRA


class StoreError(InfraError):
    """The task store cannot be reached, refuses us, is read-only or out of memory."""


class OutputError(InfraError):
    """The output place cannot be written or listed."""

    def __init__(self, message: str, *, hint: str = "", lasting: bool = False, full: bool = False, remote: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.lasting = lasting or full
        """Trying again does not help until somebody acts: full, read-only, forbidden."""
        self.full = full
        """There is no room."""
        self.remote = remote
        """Met at a service, which is the same for all workers, and not on a disk, which may be this machine's alone."""


class MasterError(InfraError):
    """No master answers at the address, or it refuses the token or the job."""


class MachineError(InfraError):
    """This machine cannot do it: too little memory, a broken device. Another one may."""


class FencedError(InfraError):
    """A master with a higher epoch rules this job; this one must stop."""


class InternalError(AntinferError):
    """A bug in antinfer."""


class InvariantViolation(InternalError):
    """The rows of the plan are no longer partitioned; carries the story of the range."""


class VerifyFault(AntinferError):
    """The audit of an output found at least one fault."""

    blame = Blame.INFRA
    exit_code = 4


class Interrupted(AntinferError):
    """Stopped by the user; the same command resumes."""

    blame = Blame.USER
    exit_code = 130
