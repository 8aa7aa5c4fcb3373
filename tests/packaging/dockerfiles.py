"""Dockerfiles as far as ours go: stages of instructions, for tests on machines without Docker."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Stage:
    base: str
    name: str
    instructions: tuple[tuple[str, str], ...]
    """Each with its arguments, as they are written."""

    def all(self, instruction: str) -> list[str]:
        return [arguments for name, arguments in self.instructions if name == instruction]


@dataclass(frozen=True)
class Dockerfile:
    arguments: dict[str, str]
    """Of the build, before the first stage."""
    stages: tuple[Stage, ...]

    @classmethod
    def read(cls, path: Path) -> Dockerfile:
        """Read a Dockerfile. Raises AssertionError for a line that is no instruction."""
        text = "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("#"))
        arguments: dict[str, str] = {}
        stages: list[tuple[str, str, list[tuple[str, str]]]] = []
        for line in filter(None, map(str.strip, re.sub(r"\\\n\s*", " ", text).splitlines())):
            found = re.fullmatch(r"([A-Z]+)\s+(.+)", line)
            assert found, f"{path}: {line!r} is no instruction"
            name, rest = found.groups()
            if name == "FROM":
                base, _, alias = rest.partition(" AS ")
                stages.append((base, alias, []))
            elif stages:
                stages[-1][2].append((name, rest))
            else:
                assert name == "ARG", f"{path}: {name} before the first FROM"
                key, _, value = rest.partition("=")
                arguments[key] = value
        return cls(arguments, tuple(Stage(base, alias, tuple(inside)) for base, alias, inside in stages))


def copied(stage: Stage) -> list[str]:
    """Return what a stage takes out of the context."""
    found = []
    for arguments in stage.all("COPY") + stage.all("ADD"):
        words = shlex.split(arguments)
        if not any(word.startswith("--from=") for word in words):
            found += words[:-1]
    return found
