"""Preconditions of a request on the generation of an object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tests.integration.gcs.errors import condition_not_met, invalid, not_modified
from tests.integration.gcs.objects import StoredObject

KINDS = ("GenerationMatch", "GenerationNotMatch", "MetagenerationMatch", "MetagenerationNotMatch")
TARGET = frozenset(f"if{kind}" for kind in KINDS)
SOURCE = frozenset(f"ifSource{kind}" for kind in KINDS)


@dataclass(frozen=True)
class Conditions:
    """What has to hold of the live object; `asked` has the numbers by the names of KINDS."""

    asked: Mapping[str, int]
    prefix: str = "if"

    @classmethod
    def of(cls, query: Mapping[str, str], prefix: str = "if") -> Conditions:
        """Read the parameters that begin with `prefix`; raises ApiError for what is no number, or a pair that excludes itself."""
        asked = {kind: number(query, prefix + kind) for kind in KINDS if prefix + kind in query}
        for kind in ("Generation", "Metageneration"):
            if {f"{kind}Match", f"{kind}NotMatch"} <= asked.keys():
                raise invalid(f"{prefix}{kind}Match and {prefix}{kind}NotMatch exclude each other", f"{prefix}{kind}NotMatch")
        return cls(asked, prefix)

    def check(self, live: StoredObject | None) -> None:
        """Raise ApiError: 412 where a match is missed, 304 where what should differ does not, or there is no object to differ from."""
        now = {"Generation": live.generation, "Metageneration": live.metageneration} if live else {"Generation": 0}
        for kind, wanted in self.asked.items():
            subject = kind.removesuffix("Match").removesuffix("Not")
            if kind.endswith("NotMatch"):
                if live is None or now[subject] == wanted:
                    raise not_modified()
            elif now.get(subject) != wanted:
                raise condition_not_met(self.prefix + kind)


NONE = Conditions({})


def number(query: Mapping[str, str], parameter: str) -> int:
    """Return a parameter that is an integer of 64 bits; raises ApiError for another."""
    value = query[parameter]
    if not (value.isascii() and value.isdigit() and int(value) < 1 << 63):
        raise invalid(f"Invalid value for {parameter}: {value!r}", parameter)
    return int(value)
