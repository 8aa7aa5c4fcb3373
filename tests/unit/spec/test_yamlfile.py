"""The YAML that job files are written in."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antinfer.errors import JobFileError
from antinfer.spec.yamlfile import read_scalar, read_yaml, write_yaml

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("true", True),
        ("1e-4", 1e-4),
        ("1.5E3", 1500.0),
        (".5", 0.5),
        ("1:30", "1:30"),
        ("010", 10),
        ("0x10", 16),
        ("0o10", 8),
        ("-3", -3),
        ("1_000", "1_000"),
        ("2020-01-02", "2020-01-02"),
        ("~", None),
        ("", None),
        ("null", None),
        ("-.inf", -math.inf),
    ],
)
def test_scalars_are_read_by_the_core_schema(text, value):
    assert read_scalar(text) == value
    assert type(read_scalar(text)) is type(value)


@given(JSON_VALUES)
@settings(max_examples=150, deadline=None)
def test_what_is_written_is_read_back(value):
    assert read_yaml(write_yaml(value), "test")[0] == value


@pytest.mark.parametrize("word", ["no", "on", "1e-4", "1:30", "2020-01-02", "0o7", "=", "<<", "~", "", "1_000", "yes"])
def test_text_that_looks_like_something_else_stays_text(word):
    assert read_yaml(write_yaml({"key": word}), "test")[0] == {"key": word}


def test_places_are_lines_of_keys_and_items():
    _, lines = read_yaml("a:\n  b: 1\n  c:\n  - x\n  - d: 2\n", "f.yaml")
    assert [lines.place(at) for at in ((), ("a",), ("a", "b"), ("a", "c", 0), ("a", "c", 1, "d"), ("a", "c", 1, "nowhere"))] == [
        f"f.yaml:{line}" for line in (1, 1, 2, 4, 5, 5)
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: &x [*x]", "f.yaml:1: this value contains itself"),
        ("a: 1\n? [b]\n: 2", "f.yaml:2: a key must be plain text"),
        ("a: {b: 1, b: 2}", "f.yaml:1: a.b is given twice"),
        ("a: 1\n---\nb: 2", "f.yaml:2: not valid YAML: but found another document"),
        ("a: !!python/object:os.system x", "f.yaml:1: not valid YAML: could not determine a constructor"),
        ("a: \x00", "f.yaml: not valid YAML"),
    ],
)
def test_refused(text, complaint):
    with pytest.raises(JobFileError) as caught:
        read_yaml(text, "f.yaml")
    assert str(caught.value).startswith(complaint)
