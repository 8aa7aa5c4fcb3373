"""What the scripts that generate reference pages share: one command line, and the comparison with the page that is checked in."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def escape(text: str) -> str:
    """Make `text` fit into one cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def main(description: str, page: str, render: Callable[[], str]) -> int:
    """Write `page` (relative to the repository) from `render`, or with ``--check`` only compare; return the exit status."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when the page is out of date")
    options = parser.parse_args()
    target = ROOT / page
    wanted = render()
    if not options.check:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(wanted)
        print(page)
        return 0
    if target.is_file() and target.read_text() == wanted:
        return 0
    print(f"{page} is out of date; run: python {Path(sys.argv[0]).name} (in scripts/)")
    return 1
