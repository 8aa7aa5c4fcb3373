"""TorchPredictor on the CPU; the same class on a device is under test in tests/gpu."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from antinfer.errors import UserCodeError
from antinfer.predictors import TorchPredictor

torch = pytest.importorskip("torch")


class Linear(torch.nn.Module):  # type: ignore[misc, name-defined]
    def __init__(self, factor: float = 2.0) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(factor))
        self.sizes: list[int] = []

    def forward(self, x: Any, y: Any = None) -> Any:
        self.sizes.append(len(x))
        return x * self.factor if y is None else {"sum": x + y, "difference": x - y}


def predictor(model: Any = Linear, **keys: Any) -> TorchPredictor:
    made = TorchPredictor(model, **{"device": "cpu", **keys})
    made.setup()
    return made


def xs(*values: float, name: str = "x", dtype: str = "float32") -> dict[str, Any]:
    array = np.array(values, dtype=dtype)
    array.flags.writeable = False
    return {name: array}


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"torch_steps_{uuid4().hex}"
    (tmp_path / f"{name}.py").write_text(
        "import torch\n"
        "def make(width=1):\n    return torch.nn.Linear(width, 1)\n"
        "def as_matrix(batch):\n    return batch['x'].reshape(-1, 1)\n"
        "def score(output):\n    return {'score': output[:, 0], 'text': ['t'] * len(output)}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield name
    sys.modules.pop(name, None)


@pytest.mark.parametrize("model", [Linear(3.0), Linear, lambda **keys: Linear(**keys)], ids=["module", "class", "factory"])
def test_a_module_or_what_makes_one(model: Any) -> None:
    args = {} if isinstance(model, torch.nn.Module) else {"factor": 3.0}
    assert predictor(model, model_args=args)(xs(1, 2))["output"].tolist() == [3, 6]


def test_everything_by_name_as_a_job_file_has_it(steps: str, tmp_path: Path) -> None:
    weights = tmp_path / "w.pt"
    torch.save({"weight": torch.tensor([[2.0]]), "bias": torch.tensor([1.0])}, weights)
    made = predictor(
        f"{steps}:make", model_args={"width": 1}, weights=str(weights), preprocess=f"{steps}:as_matrix", postprocess=f"{steps}:score"
    )
    result = made(xs(1, 2))
    assert result["score"].tolist() == [3, 5] and result["text"] == ["t", "t"]


def test_hooks_can_be_overridden() -> None:
    class Mine(TorchPredictor):
        def build(self) -> Any:
            return Linear(10.0)

        def preprocess(self, batch: dict[str, Any]) -> Any:
            assert not torch.is_grad_enabled() and torch.is_inference_mode_enabled()
            # In place: the caller's array must not see it.
            return batch["x"].add_(1)

        def postprocess(self, output: Any) -> dict[str, Any]:
            return {"y": output.to(torch.int64)}

    given = xs(1, 2)
    made = Mine(device="cpu")
    made.setup()
    assert made(given)["y"].tolist() == [20, 30] and given["x"].tolist() == [1, 2]


def test_inputs_and_outputs_are_named() -> None:
    batch = {**xs(1, 2), **xs(3, 5, name="other")}
    both = predictor(inputs={"x": "other", "y": "x"})(batch)
    assert {name: column.tolist() for name, column in both.items()} == {"sum": [4, 7], "difference": [2, 3]}
    assert predictor(inputs=["x", "other"], outputs="sum")(batch)["sum"].tolist() == [4, 7]
    assert predictor(inputs="x", outputs="twice")(batch)["twice"].tolist() == [2, 4]
    assert list(predictor()({**xs(1), **xs(2, name="y")})) == ["sum", "difference"]

    class Pair(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x: Any) -> Any:
            return x, x + 1

    assert list(predictor(Pair)(xs(1))) == ["output_0", "output_1"]
    for keys, words in [
        ({"inputs": "z"}, "no column 'z'"),
        ({"inputs": ["x", "other"], "outputs": "product"}, "no 'product'"),
    ]:
        with pytest.raises(UserCodeError, match=words):
            predictor(**keys)(batch)
    with pytest.raises(UserCodeError, match="2 values, and outputs names 1"):
        predictor(Pair, outputs=["only"])(xs(1))


def test_dtypes() -> None:
    made = predictor(dtype="bf16")
    assert made._run.factor.dtype == torch.bfloat16
    result = made(xs(1, 2))["output"]
    # Arrow knows no bfloat16.
    assert result.dtype == np.float32 and result.tolist() == [2, 4]
    assert predictor(dtype="fp16")(xs(1))["output"].dtype == np.float16
    kept = predictor(dtype="bf16", autocast=True)
    assert kept._run.factor.dtype == torch.float32 and kept.dtype == "bf16+autocast"

    class Kind(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, ids: Any) -> Any:
            assert ids.dtype == torch.int64
            return ids

    assert predictor(Kind, dtype="bf16")(xs(1, 2, dtype="int64"))["output"].tolist() == [1, 2]


def test_images_are_laid_out_channels_last() -> None:
    class Layout(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, images: Any) -> Any:
            assert images.is_contiguous(memory_format=torch.channels_last)
            return images.mean(dim=(1, 2, 3))

    images = np.ones((2, 3, 4, 4), dtype=np.float32)
    assert predictor(Layout, channels_last=True)({"image": images})["output"].tolist() == [1, 1]


def test_compiled_models_see_few_sizes() -> None:
    made = predictor()
    # Compiling takes a compiler; what is decided before and after does not.
    made._compile = True
    made.expect(16)
    for rows in [16, 3, 16, 5, 1]:
        assert made(xs(*range(rows)))["output"].tolist() == [2 * value for value in range(rows)]
    made.expect(8)
    for rows in [8, 7, 9, 17]:
        assert len(made(xs(*range(rows)))["output"]) == rows
    assert made._run.sizes == [16, 16, 16, 16, 16, 8, 8, 16, 17]


def test_an_example_warms_the_whole_model_up() -> None:
    model = Linear()
    made = TorchPredictor(model, device="cpu", example={"x": {"shape": [3], "dtype": "float32"}})
    made.expect(5)
    made.setup()
    assert model.sizes == [5]


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (np.array(["a", "b"], dtype=object), ["'s'", "strings"]),
        (np.array([b"a", b"b"], dtype=object), ["'s'", "bytes"]),
        (np.array(["2024-01-01"], dtype="datetime64[s]"), ["'s'", "datetime64"]),
        (["list"], ["'s'"]),
    ],
)
def test_what_is_no_tensor_is_told_with_the_way_out(column: Any, words: list[str]) -> None:
    with pytest.raises(UserCodeError) as caught:
        predictor()({"s": column})
    assert all(word in str(caught.value) for word in words) and "columns: [...]" in caught.value.hint


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"dtype": "int8"}, "int8"),
        ({"autocast": True}, "autocast needs"),
        ({"model": None}, "has no model"),
        ({"model": lambda: 3}, "not a int"),
        ({"weights": "/nowhere/w.pt"}, "does not exist"),
        ({"device": "cuda"}, "finds no GPU"),
        ({"model": "no_such_module:f"}, "no_such_module"),
    ],
)
def test_what_cannot_be_set_up_is_named(keys: dict[str, Any], words: str) -> None:
    if torch.cuda.is_available() and keys.get("device") == "cuda":
        pytest.skip("there is a GPU")
    with pytest.raises(Exception, match=words):
        predictor(**{"model": Linear, **keys})


def test_weights_that_do_not_fit_are_told(tmp_path: Path) -> None:
    torch.save({"other": torch.zeros(1)}, tmp_path / "w.pt")
    with pytest.raises(UserCodeError, match=r"w\.pt do not fit the model"):
        predictor(weights=str(tmp_path / "w.pt"))
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(UserCodeError, match="cannot load"):
        predictor(weights=str(tmp_path / "text.pt"))


def test_a_cpu_is_given_one_batch_at_a_time() -> None:
    assert predictor().depth == 1
