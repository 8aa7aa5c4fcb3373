"""The three kinds of patches, on values alone."""

from __future__ import annotations

import pytest

from tests.k8s.double.errors import ApiError
from tests.k8s.double.patches import json_patch, merge_patch, strategic_patch


def test_merge_patch_removes_with_null_and_replaces_lists() -> None:
    target = {"a": {"b": 1, "c": 2}, "list": [1, 2]}

    assert merge_patch(target, {"a": {"b": None, "d": {"e": None}}, "list": [3]}) == {"a": {"c": 2, "d": {}}, "list": [3]}
    assert target == {"a": {"b": 1, "c": 2}, "list": [1, 2]}, "the target itself was changed"


def test_strategic_patch_merges_containers_and_their_variables_by_name() -> None:
    target = {"containers": [{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b", "image": "1"}]}
    patch = {"containers": [{"name": "a", "env": [{"name": "Y", "value": "2"}, {"name": "X", "value": "3"}]}]}

    assert strategic_patch(target, patch)["containers"] == [
        {"name": "a", "image": "1", "env": [{"name": "X", "value": "3"}, {"name": "Y", "value": "2"}]},
        {"name": "b", "image": "1"},
    ]


@pytest.mark.parametrize("field", ["tolerations", "taints", "args"])
def test_strategic_patch_replaces_lists_that_have_no_merge_key(field: str) -> None:
    assert strategic_patch({field: [{"key": "a"}]}, {field: [{"key": "b"}]}) == {field: [{"key": "b"}]}


def test_strategic_patch_merges_finalizers_as_a_set_and_can_take_them_out() -> None:
    target = {"finalizers": ["a", "b"]}

    assert strategic_patch(target, {"finalizers": ["b", "c"]}) == {"finalizers": ["a", "b", "c"]}
    assert strategic_patch(target, {"$deleteFromPrimitiveList/finalizers": ["a"]}) == {"finalizers": ["b"]}


def test_strategic_patch_directives() -> None:
    target = {"conditions": [{"type": "A", "status": "1"}, {"type": "B"}], "volumes": [{"name": "v", "emptyDir": {}}], "map": {"a": 1}}

    assert strategic_patch(target, {"conditions": [{"type": "A", "$patch": "delete"}]})["conditions"] == [{"type": "B"}]
    assert strategic_patch(target, {"conditions": [{"$patch": "replace"}, {"type": "C"}]})["conditions"] == [{"type": "C"}]
    assert strategic_patch(target, {"map": {"$patch": "replace", "b": 2}})["map"] == {"b": 2}
    retained = {"volumes": [{"name": "v", "$retainKeys": ["name", "secret"], "secret": {"secretName": "s"}}]}
    assert strategic_patch(target, retained)["volumes"] == [{"name": "v", "secret": {"secretName": "s"}}]
    ordered = {"$setElementOrder/conditions": [{"type": "B"}, {"type": "A"}]}
    assert [each["type"] for each in strategic_patch(target, ordered)["conditions"]] == ["B", "A"]


def test_strategic_patch_refuses_an_item_without_its_key() -> None:
    with pytest.raises(ApiError, match="merge key: name"):
        strategic_patch({"containers": [{"name": "a"}]}, {"containers": [{"image": "x"}]})


def test_json_patch_operations() -> None:
    target = {"a": [1, 2], "b": {"c/d": 1}}
    operations = [
        {"op": "test", "path": "/b/c~1d", "value": 1},
        {"op": "add", "path": "/a/1", "value": 9},
        {"op": "add", "path": "/a/-", "value": 3},
        {"op": "replace", "path": "/b/c~1d", "value": 2},
        {"op": "copy", "from": "/a/0", "path": "/e"},
        {"op": "move", "from": "/b", "path": "/f"},
        {"op": "remove", "path": "/a/0"},
    ]

    assert json_patch(target, operations) == {"a": [9, 2, 3], "e": 1, "f": {"c/d": 2}}


@pytest.mark.parametrize(
    "operation",
    [
        pytest.param({"op": "test", "path": "/a", "value": 2}, id="failed-test"),
        pytest.param({"op": "remove", "path": "/none"}, id="nothing-there"),
        pytest.param({"op": "replace", "path": "/none", "value": 1}, id="nothing-to-replace"),
        pytest.param({"op": "add", "path": "a", "value": 1}, id="bad-pointer"),
    ],
)
def test_json_patch_that_does_not_apply(operation: dict[str, object]) -> None:
    with pytest.raises(ApiError) as caught:
        json_patch({"a": 1}, [operation])
    assert caught.value.code == 422
