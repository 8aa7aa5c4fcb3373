"""The ``antinfer`` script: what a run needs in any case is started before the parser of the command line is even imported."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from antinfer.launchers.leaving import leave
from antinfer.launchers.local.headstart import HeadStart


def main() -> NoReturn:
    """Entry point of the ``antinfer`` script."""
    early = head_start(sys.argv[1:])
    try:
        from antinfer.cli import commands

        code = commands.call(early)
    except KeyboardInterrupt:
        from antinfer.errors import Interrupted

        code = Interrupted.exit_code
    finally:
        if early is not None:
            early.discard()
    leave(code)


def head_start(words: Sequence[str]) -> HeadStart | None:
    """Start the processes of a run on this machine when `words`, the command line, look like one; nothing is lost when they are wrong."""
    if words[:1] not in (["run"], ["resume"]) or "--help" in words or any(word.startswith("--launcher") for word in words):
        return None
    early = HeadStart(force="--force" in words, verbose=not {"-v", "--verbose"}.isdisjoint(words))
    early.start()
    return early
