"""How the core declares its values: what events, commands, messages and records are made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(cls: type[T]) -> type[T]:
    """Make `cls` a dataclass with slots that is compared and hashed by its fields, and that nobody may change once it is made.

    The type checker sees to the latter, as for ``dataclass(frozen=True)``. That one has every field set through a method call to see to it
    at run time as well, which makes a value four times as dear; a master makes half a dozen of them for every request.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)
