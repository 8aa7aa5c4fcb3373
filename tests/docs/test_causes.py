"""Every cause is one that the code gives, and one that the users' page on failures tells of under the name that they are shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from antinfer.core.causes import Cause

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "operations" / "failures.md").read_text()
BUDGETS = (ROOT / "docs" / "failures-and-budgets.md").read_text()
FOLDERS = ("antinfer/core", "antinfer/launchers", "antinfer/rpc", "master", "worker")
SOURCES = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
GIVEN = {name for path in SOURCES if path.name != "causes.py" for name in re.findall(r"\bCause\.([A-Z_]+)\b", path.read_text())}


@pytest.mark.parametrize("cause", Cause, ids=lambda cause: cause.value)
def test_a_cause_is_given_and_told(cause: Cause) -> None:
    assert cause.name in GIVEN, "nothing brings it about"
    rows = [line for line in PAGE.splitlines() if line.startswith("|") and f"`{cause.value}`" in line]
    assert rows, "no line of the page has it"
    # The last column: a command or a place, and not only words.
    assert all(re.search(r"`antinfer |`kubectl |standard error|same command", row.rstrip("| ").rpartition("|")[2]) for row in rows), rows


@pytest.mark.parametrize("cause", [cause for cause in Cause if cause is not Cause.UNKNOWN], ids=lambda cause: cause.value)
def test_a_cause_has_its_budget_on_the_page_about_budgets(cause: Cause) -> None:
    assert f"`{cause.value}`" in BUDGETS
