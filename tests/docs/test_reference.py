"""The reference pages are generated, so they cannot lag behind the code; everything else in the docs points at things that exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(path for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
COMMAND = re.compile(r"^\s*(?:\$ )?antinfer ([a-z]+)", re.MULTILINE)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("script", ["gen_job_reference.py", "gen_cli_reference.py", "gen_chart_schema.py"])
def test_reference_page_is_fresh(script: str) -> None:
    command = [sys.executable, f"scripts/{script}", "--check"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    targets = [target for target in LINK.findall(page.read_text()) if "://" not in target]

    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_in_the_text_exist(page: Path) -> None:
    documented = set(re.findall(r"^## antinfer ([a-z]+)", (ROOT / "docs/reference/cli.md").read_text(), re.MULTILINE))
    used = set(COMMAND.findall(page.read_text()))

    assert used - documented == set()


def test_every_command_is_documented_and_has_help() -> None:
    reference = (ROOT / "docs/reference/cli.md").read_text()
    help_command = [sys.executable, "-c", "from antinfer.cli.app import main; main()", "--help"]
    top = subprocess.run(help_command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    commands = re.findall(r"^## antinfer ([a-z]+)$", reference, re.MULTILINE)

    assert commands, "the reference page lists no command"
    assert [name for name in commands if not re.search(rf"\b{name}\b", top)] == []
    assert [name for name in commands if not re.search(rf"^## antinfer {name}\n\n\S", reference, re.MULTILINE)] == []


def test_readme_shows_the_two_commands() -> None:
    readme = (ROOT / "README.md").read_text()

    assert "make demo" in readme
    assert "make test" in readme
