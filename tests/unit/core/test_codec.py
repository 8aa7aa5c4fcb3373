"""Whatever a class declares comes back as it was, and what other versions wrote is read as far as it can be."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antinfer.core.codec import Codec, Form
from tests.unit.core.values_of import values_of


class Colour(Enum):
    RED = "red"
    BLUE = "b\"lu'e"


class Point(NamedTuple):
    x: int
    y: float = 0.5


@dataclass
class Leaf:
    name: str
    colour: Colour | None
    at: tuple[Point, ...] = ()


@dataclass
class Knot:
    flag: bool
    pair: tuple[int, str]
    named: dict[str, Leaf]
    either: Leaf | Point | None
    below: tuple[Knot, ...] = ()


knots: st.SearchStrategy[Knot] = st.deferred(
    lambda: st.builds(
        Knot,
        flag=st.booleans(),
        pair=st.tuples(st.integers(), st.text()),
        named=st.dictionaries(st.text(), values_of(Leaf), max_size=2),
        either=st.one_of(values_of(Leaf), values_of(Point), st.none()),
        below=st.one_of(st.just(()), st.lists(knots, max_size=2).map(tuple)),
    )
)


@settings(max_examples=50, deadline=None)
@given(st.one_of(values_of(Leaf), knots))
def test_every_value_comes_back(found: Leaf | Knot) -> None:
    codec = Codec(Leaf | Knot)
    text = codec.encode(found)

    assert "\n" not in text
    assert codec.decoder()(json.loads(text)) == found


@pytest.mark.parametrize("number", [math.inf, -math.inf, 1e-320, 0.1, 3, -0.0])
def test_odd_numbers_come_back(number: float) -> None:
    codec = Codec(Point)

    assert codec.decoder()(json.loads(codec.encode(Point(1, number)))).y == number
    assert math.isnan(codec.decoder()(json.loads(codec.encode(Point(1, math.nan)))).y)


def test_a_plain_tuple_stands_for_a_named_one() -> None:
    assert Codec(Point).encode((3, 0.25)) == "[3,0.25]"


def test_a_class_may_have_its_own_form() -> None:
    codec = Codec(Leaf, {Point: Form(lambda point: f'"{point.x}"', lambda data: Point(int(data)))})
    text = codec.encode(Leaf("a", None, (Point(7),)))

    assert text == '["a",null,["7"]]'
    assert codec.decoder()(json.loads(text)) == Leaf("a", None, (Point(7),))


def test_fields_of_another_version_are_found_by_name() -> None:
    read = Codec(Leaf | Point).decoder

    # Written when colour came first, a field was there that is gone since, and points were not known yet.
    assert read({"Leaf": ("colour", "gone", "name")})(["Leaf", "red", 5, "a"]) == Leaf("a", Colour.RED)
    with pytest.raises(ValueError, match="Leaf was written without name"):
        read({"Leaf": ("colour",)})(["Leaf", None])
    with pytest.raises(ValueError, match="nothing is known of"):
        read({"Leaf": ("name", "colour")})(["Point", 1])
    with pytest.raises(ValueError, match="not a Leaf"):
        read()(["Leaf", "a"])


@dataclass
class Raw:
    data: bytes


@dataclass
class Vague:
    either: int | str


def test_what_has_no_text_form_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match=r"Raw\.data has a type without a text form: bytes"):
        Codec(Raw)
    with pytest.raises(TypeError, match=r"Vague\.either may hold <class 'int'>"):
        Codec(Vague)
