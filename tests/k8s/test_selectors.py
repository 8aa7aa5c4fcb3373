"""Selectors in text and as objects."""

from __future__ import annotations

import pytest

from tests.k8s.double.errors import ApiError
from tests.k8s.double.kinds import CONFIGMAPS, PODS
from tests.k8s.double.selectors import matches_labels, parse_fields, parse_labels

LABELS = {"app": "web", "tier": "front", "example.com/zone": "a"}


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("app=web", True),
        ("app==web,tier=front", True),
        ("app!=web", False),
        ("other!=x", True),
        ("app in (api, web)", True),
        ("app notin (api),tier", True),
        ("other notin (x)", True),
        ("other in (x)", False),
        ("!other", True),
        ("!app", False),
        ("example.com/zone=a", True),
        ("app=", False),
    ],
)
def test_label_selectors(selector: str, expected: bool) -> None:
    assert parse_labels(selector)({"metadata": {"labels": LABELS}}) is expected


@pytest.mark.parametrize("selector", ["a==b==c", "app in web", "=x", "a b"])
def test_label_selectors_that_cannot_be_understood(selector: str) -> None:
    with pytest.raises(ApiError, match="unable to parse requirement"):
        parse_labels(selector)


def test_field_selectors() -> None:
    pod = {"metadata": {"name": "p", "namespace": "n"}, "spec": {"nodeName": "a"}, "status": {"phase": "Running"}}

    assert parse_fields("spec.nodeName=a,status.phase!=Failed", PODS)(pod)
    assert not parse_fields("spec.nodeName=", PODS)(pod)
    with pytest.raises(ApiError, match=r"field label not supported: spec\.image"):
        parse_fields("spec.image=a", PODS)
    with pytest.raises(ApiError, match=r"field label not supported: status\.phase"):
        parse_fields("status.phase=a", CONFIGMAPS)


def test_selectors_of_objects() -> None:
    expression = {"key": "tier", "operator": "In", "values": ["front", "back"]}

    assert matches_labels({"matchLabels": {"app": "web"}, "matchExpressions": [expression]}, LABELS)
    assert not matches_labels({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}, LABELS)
    assert matches_labels({}, LABELS)
    assert not matches_labels(None, LABELS)
