"""``python -m antinfer.testing.sim``: the random search, whole jobs with thousands of workers, and policies compared."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from antinfer.testing.sim import recipes
from antinfer.testing.sim.fleet.command import fleet, policies
from antinfer.testing.sim.search import Tally, play, search

_EPILOG: Final = """
commands:
  (none)     play seeds, each of them another scenario; --seed N plays one and prints all that happened
  fleet      one whole job with thousands of workers            (fleet --help)
  policies   policies compared over seeds                       (policies --help)
"""


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status: 1 when something was lost, doubled or stuck."""
    # Masters and controllers by the hundred: what each of them says, nobody reads.
    logging.getLogger("antinfer").addHandler(logging.NullHandler())
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = _COMMANDS.get(given[0]) if given else None
    return _search(given) if command is None else command(given[1:], say)


def _search(given: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m antinfer.testing.sim", description=__doc__, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=2_000, help="how many seeds to play (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--jobs", type=int, default=1, help="processes to share them out to")
    parser.add_argument("--seed", type=int, help="play this seed alone and print all that happens")
    parser.add_argument("--corpus", type=Path, help="play the runs of this file first, and add the shrunk form of what fails")
    chosen = parser.parse_args(given)
    if chosen.seed is not None:
        outcome = play(chosen.seed)
        say(outcome.transcript())
        return 0 if outcome.ok else 1
    is_ok = chosen.corpus is None or _replay(chosen.corpus)
    tally = search(chosen.first, chosen.seeds, jobs=chosen.jobs, on_chunk=_tell)
    say(str(tally))
    if chosen.corpus is not None and tally.findings:
        added = recipes.append(chosen.corpus, [finding.recipe for finding in tally.findings])
        say(f"{added} runs were added to {chosen.corpus}")
    return 0 if is_ok and not tally.findings else 1


def _tell(tally: Tally) -> None:
    for finding in tally.findings:
        say(f"{finding}\n")


def _replay(corpus: Path) -> bool:
    failed = 0
    for recipe in recipes.read(corpus):
        outcome = recipe.play()
        if not outcome.ok:
            failed += 1
            say(f"fails again: {recipe.note}\n{outcome.transcript()}\n")
    return not failed


_COMMANDS: Final[dict[str, Callable[[list[str], Callable[[str], None]], int]]] = {"fleet": fleet, "policies": policies}

if __name__ == "__main__":
    sys.exit(main())
