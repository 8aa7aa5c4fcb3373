"""How a master tells whoever started it what became of the job: a small JSON file, written whole or not at all.

A master that was killed writes none, and that is how its launcher knows to start it again.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from antinfer import errors
from antinfer.errors import AntinferError, InternalError, UserCodeError

OutcomeStatus = Literal["done", "failed", "stopped"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a master."""

    status: OutcomeStatus
    """``done``: every row is published and sealed. ``failed``: starting it again would not help. ``stopped``: it was asked to stop."""
    kind: str = ""
    """Class name of the error, from `antinfer.errors`."""
    message: str = ""
    hint: str = ""
    user_traceback: str = ""

    @classmethod
    def of(cls, error: AntinferError) -> Outcome:
        """The outcome of a master that ended with `error`."""
        # Adapters have subclasses of their own; what crosses is the class of the tree that they belong to.
        kind = next(kind.__name__ for kind in type(error).__mro__ if getattr(errors, kind.__name__, None) is kind)
        return cls("failed", kind, str(error), error.hint, getattr(error, "user_traceback", ""))

    def to_error(self) -> AntinferError:
        """The error behind a failed outcome, as its own class."""
        if self.kind == UserCodeError.__name__:
            return UserCodeError(self.message, hint=self.hint, user_traceback=self.user_traceback)
        kind = getattr(errors, self.kind, InternalError)
        error: AntinferError = kind(self.message, hint=self.hint)
        return error

    def write(self, path: Path) -> None:
        scratch = path.with_name(path.name + ".tmp")
        scratch.write_text(json.dumps(asdict(self)), encoding="utf-8")
        os.replace(scratch, path)

    @classmethod
    def read(cls, path: Path) -> Outcome | None:
        """Read what a master left behind; None when it left nothing."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
