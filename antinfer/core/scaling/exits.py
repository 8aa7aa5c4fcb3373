"""Exit codes of worker processes that mean something to whoever started them."""

from __future__ import annotations

from typing import Final

DONE: Final = 0
"""The job is over, or the worker has given everything back that it held."""
ERROR: Final = 1
"""It cannot go on; what was wrong it has told the master, if that could be reached."""
USAGE: Final = 2
"""Its command line or its settings are wrong."""
TAKEN_AWAY: Final = 75
"""It was told by a signal to leave, and did: committed what was finished, returned the rest. EX_TEMPFAIL, which no shell uses by itself."""
INTERRUPTED: Final = 130
"""It was told twice, and left at once."""
NOT_RUN: Final = 126
"""No process could be made of it; 127: it was not found."""
SIGNALLED: Final = 128
"""And the number of the signal that ended it."""


def of_process(status: int) -> int:
    """Return the exit code, as a shell has it, of a process whose status `subprocess` gives (a signal as its negative number)."""
    return status if status >= 0 else SIGNALLED - status
