"""A predictor around any torch module.

On a GPU a batch goes through three queues that work at once: it is copied to the device on a stream of its own while the last one is
computed, and results are copied back behind the computation; the host waits for an event only when somebody wants them.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from antinfer.errors import UserCodeError
from antinfer.predictors.names import function
from antinfer.predictors.weights import load_state

_LOG = logging.getLogger("antinfer.predictors")
_DTYPES = {
    "bf16": "bfloat16",
    "fp16": "float16",
    "fp32": "float32",
    "bfloat16": "bfloat16",
    "float16": "float16",
    "float32": "float32",
}
_SIZES_COMPILED = 64
"""Batch sizes that may be compiled before torch gives up and runs as it is."""


@dataclass(slots=True)
class _Ticket:
    """A batch on its way through the device."""

    results: dict[str, Any]
    done: Any
    """Event behind the last copy; None when there is nothing to wait for."""
    batch: Mapping[str, Any]
    """Memory that the device may still be reading."""


class TorchPredictor:
    """Runs a torch module over batches, on the GPU that the stage was given or on the CPU.

    A batch is ``dict[str, Tensor]`` on the device. It goes through `preprocess`, the module and `postprocess`; subclass and override these,
    or pass functions of the same name. All arguments but modules and functions can be written in a job file; these by name::

        - predict: antinfer.predictors:TorchPredictor
          num_gpus: 1
          columns: [image]
          args: {model: "torchvision.models:resnet50", weights: s3://models/resnet50.pt, dtype: bf16, channels_last: true,
                 preprocess: "steps:normalize", postprocess: "steps:top1"}
    """

    def __init__(
        self,
        model: Any = None,
        *,
        model_args: Mapping[str, Any] | None = None,
        weights: str | None = None,
        inputs: str | Sequence[str] | Mapping[str, str] | None = None,
        outputs: str | Sequence[str] | None = None,
        dtype: str | None = None,
        autocast: bool = False,
        channels_last: bool = False,
        compile: bool | str = False,
        warmup: bool = True,
        example: Mapping[str, Mapping[str, Any]] | None = None,
        device: str | None = None,
        preprocess: Callable[[dict[str, Any]], Any] | str | None = None,
        postprocess: Callable[[Any], dict[str, Any]] | str | None = None,
    ) -> None:
        """Check the arguments; the module is made by `setup`.

        Args:
            model: A module, a function or class that makes one, or the name of such as ``module:name``. None: `build` is overridden.
            model_args: Keyword arguments for the function or class.
            weights: Path or URI of a state dict; from an object store it is fetched once per machine.
            inputs: What the module is called with: names of columns in the order of its arguments, or argument -> column. Default: the only
                column there is, or all of them as keyword arguments.
            outputs: Names of what the module returns: one, or one for each member of a tuple; of a dict, the members to keep. Default:
                ``output``, ``output_0`` and so on, or all members.
            dtype: ``bf16``, ``fp16`` or ``fp32``: of the weights and of floating-point inputs. Default: as they are.
            autocast: Leave the weights as they are and have torch choose, operation by operation, between theirs and `dtype`.
            channels_last: Memory layout of convolutional models that suits GPUs best.
            compile: Use ``torch.compile``, with a mode when it is a string. Batches are padded to sizes that are compiled already.
            warmup: Use the device before the first batch comes; with `example`, run the whole model on a full batch.
            example: One row, as column -> ``{shape: [...], dtype: uint8}``.
            device: ``cuda``, ``cpu``; default: the GPU if there is one.
            preprocess: As the method of this name.
            postprocess: As the method of this name.

        Raises:
            UserCodeError: An argument has a value that is not allowed.
        """
        if dtype is not None and dtype not in _DTYPES:
            raise UserCodeError(f"TorchPredictor: dtype {dtype!r} is not known", hint="Known: bf16, fp16, fp32.")
        if autocast and dtype not in ("bf16", "fp16", "bfloat16", "float16"):
            raise UserCodeError("TorchPredictor: autocast needs a dtype to cast to", hint="Set dtype to bf16 or fp16.")
        self._model = model
        self._model_args = dict(model_args or {})
        self._weights = weights
        self._inputs = [inputs] if isinstance(inputs, str) else inputs
        self._outputs = [outputs] if isinstance(outputs, str) else None if outputs is None else list(outputs)
        self._dtype_name = dtype
        self._autocast = autocast
        self._channels_last = channels_last
        self._compile = compile
        self._warmup = warmup
        self._example = example
        self._wanted_device = device
        self._preprocess = preprocess
        self._postprocess = postprocess
        self._torch: Any = None
        self._full = 0
        self._sizes: set[int] = set()
        """Rows of the batches that are compiled."""
        self._pinned: dict[int, int] = {}

    # -- to be overridden ------------------------------------------------------------------------------------------------------------
    def build(self) -> Any:
        """Return the module, on any device."""
        if self._model is None:
            raise UserCodeError(f"{type(self).__name__} has no model", hint="Pass model=..., or override build().")
        model = function(self._model) if isinstance(self._model, str) else self._model
        return model if isinstance(model, self._torch.nn.Module) else model(**self._model_args)

    def preprocess(self, batch: dict[str, Any]) -> Any:
        """Make what the module is called with from tensors on the device: a dict of columns, a tensor, or a tuple of arguments."""
        return batch if self._preprocess is None else self._preprocess(batch)  # type: ignore[operator]

    def postprocess(self, output: Any) -> dict[str, Any]:
        """Make columns, tensors or anything else with one entry a row, from what the module returned."""
        return self._named(output) if self._postprocess is None else self._postprocess(output)  # type: ignore[operator]

    # -- what the worker calls -------------------------------------------------------------------------------------------------------
    @property
    def dtype(self) -> str:
        """What the model computes in, in one word: part of what a batch size is remembered for."""
        words = [self._dtype_name or "as-is", "autocast" * self._autocast, "channels-last" * self._channels_last]
        return "+".join(filter(None, [*words, f"compile-{self._compile}" if self._compile else ""]))

    @property
    def depth(self) -> int:
        """Batches that may be submitted before the first is collected: a CPU computes in `submit`."""
        return 2 if self._on_gpu else 1

    def expect(self, rows: int) -> None:
        """Learn the rows of a full batch."""
        self._full = rows

    def setup(self) -> None:
        """Load torch and the model, and bring it to the device. Raises UserCodeError when there is no such device, model or weights."""
        try:
            import torch
        except ImportError as error:
            raise UserCodeError(f"TorchPredictor needs torch: {error}", hint="pip install 'antinfer[torch]'.") from error
        self._torch = torch
        self._device = self._pick_device()
        self._dtype = getattr(torch, _DTYPES[self._dtype_name]) if self._dtype_name is not None else None
        self._preprocess = None if self._preprocess is None else function(self._preprocess)
        self._postprocess = None if self._postprocess is None else function(self._postprocess)
        with ThreadPoolExecutor(1, "wake-device") as aside:
            waking = aside.submit(self._wake_device) if self._warmup and self._on_gpu else None
            module = self._load()
            if waking is not None:
                waking.result()
        self._copies: Any = torch.cuda.Stream() if self._on_gpu else None  # type: ignore[no-untyped-call]
        self._run = self._compiled(module)
        if self._warmup:
            self._warm_up()

    def register(self, view: memoryview) -> None:
        """Pin memory that batches will lie in, so that the device copies it by itself, seven times as fast."""
        if not self._on_gpu:
            return
        address = np.frombuffer(view, dtype=np.uint8).ctypes.data
        code = int(self._torch.cuda.cudart().cudaHostRegister(address, len(view), 0))
        if code:
            _LOG.warning("memory for batches cannot be pinned (CUDA error %d); copies are slower", code, extra={"action": "pin"})
            return
        self._pinned[address] = len(view)

    def unregister(self, view: memoryview) -> None:
        """Give memory back that will not be used any more."""
        address = np.frombuffer(view, dtype=np.uint8).ctypes.data
        if self._pinned.pop(address, 0):
            self._torch.cuda.cudart().cudaHostUnregister(address)

    def submit(self, batch: Mapping[str, Any]) -> _Ticket:
        """Start computing a batch of arrays, or of tensors on the device. Raises UserCodeError for columns that are no tensors."""
        if self._torch is None:
            self.setup()
        rows = min((len(column) for column in batch.values()), default=0)
        size = self._static_rows(rows)
        # All of it, copies included: a compiled model is compiled again for tensors that were made outside.
        with self._torch.inference_mode(), self._casting():
            tensors = self._to_device(batch)
            if size > rows:
                tensors = {name: self._padded(tensor, size) for name, tensor in tensors.items()}
            made = self.postprocess(self._forward(self.preprocess(tensors)))
            if not isinstance(made, Mapping):
                raise UserCodeError(f"{type(self).__name__}.postprocess must return a dict of columns, not {type(made).__name__}")
            results = {name: self._fetched(column, size, rows) for name, column in made.items()}
        return _Ticket(results, self._event(), batch)

    def done(self, ticket: _Ticket) -> bool:
        """Tell whether `collect` has nothing to wait for."""
        return ticket.done is None or bool(ticket.done.query())

    def collect(self, ticket: _Ticket) -> dict[str, Any]:
        """Wait for a batch and return its columns as arrays."""
        if ticket.done is not None:
            ticket.done.synchronize()
        tensor = self._torch.Tensor
        return {name: value.numpy() if isinstance(value, tensor) else value for name, value in ticket.results.items()}

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Compute one batch."""
        return self.collect(self.submit(batch))

    # -- setting up ------------------------------------------------------------------------------------------------------------------
    @property
    def _on_gpu(self) -> bool:
        return self._torch is not None and self._device.type == "cuda"

    def _pick_device(self) -> Any:
        torch = self._torch
        name = self._wanted_device or ("cuda" if torch.cuda.is_available() else "cpu")
        if name.startswith("cuda") and not torch.cuda.is_available():
            raise UserCodeError(
                f"TorchPredictor was asked for device {name!r}, and torch {torch.__version__} finds no GPU",
                hint="Give the stage num_gpus: 1 on a machine with a GPU, and install a torch with CUDA.",
            )
        return torch.device(name)

    def _load(self) -> Any:
        torch = self._torch
        module = self.build()
        if not isinstance(module, torch.nn.Module):
            raise UserCodeError(f"TorchPredictor needs a torch.nn.Module, not a {type(module).__name__}")
        if self._weights is not None:
            try:
                module.load_state_dict(load_state(self._weights))
            except RuntimeError as error:
                raise UserCodeError(f"the weights {self._weights} do not fit the model: {error}") from error
        module = module.eval().requires_grad_(False)
        layout = torch.channels_last if self._channels_last else torch.preserve_format
        return module.to(device=self._device, dtype=None if self._autocast else self._dtype, memory_format=layout)

    def _compiled(self, module: Any) -> Any:
        if not self._compile:
            return module
        config = self._torch._dynamo.config
        name = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"
        setattr(config, name, max(getattr(config, name), _SIZES_COMPILED))
        mode = self._compile if isinstance(self._compile, str) else None
        # One program for each size: those that serve any size are slower, and sizes are few because batches are padded.
        return self._torch.compile(module, mode=mode, dynamic=False)

    def _wake_device(self) -> None:
        """Make the context and load the library that nearly every model uses, while the module is built: neither needs the other."""
        square = self._torch.ones((64, 64), device=self._device, dtype=self._dtype)
        (square @ square).sum().item()

    def _warm_up(self) -> None:
        if self._example is not None:
            rows = max(1, self._full)
            self({name: np.zeros((rows, *row.get("shape", ())), dtype=row["dtype"]) for name, row in self._example.items()})

    # -- one batch -------------------------------------------------------------------------------------------------------------------
    def _to_device(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        torch = self._torch
        if self._copies is None:
            return {name: self._host_tensor(name, column).to(self._device) for name, column in batch.items()}
        tensors = {}
        compute = torch.cuda.current_stream()
        with torch.cuda.stream(self._copies):
            for name, column in batch.items():
                if isinstance(column, torch.Tensor) and column.device.type == "cuda":
                    tensors[name] = column
                    continue
                tensors[name] = self._host_tensor(name, column).to(self._device, non_blocking=True)
                # Its memory belongs to the stream of copies, which must not give it to another batch while this one is computed.
                tensors[name].record_stream(compute)
        compute.wait_stream(self._copies)
        return tensors

    def _host_tensor(self, name: str, column: Any) -> Any:
        torch = self._torch
        if isinstance(column, torch.Tensor):
            return column
        if not isinstance(column, np.ndarray) or column.dtype.kind not in "biuf":
            dtype = getattr(column, "dtype", None)
            kind = "strings, bytes, nested values or arrays of different shapes" if dtype is None or dtype.kind == "O" else str(dtype)
            raise UserCodeError(
                f"{type(self).__name__}: column {name!r} holds {kind}, which are no tensor",
                hint="Name the columns that the model needs with columns: [...] of the stage.",
            )
        if self._copies is None and not column.flags.writeable:
            # On a CPU the tensor is the array itself, and may be changed in place.
            column = column.copy()
        with warnings.catch_warnings():
            # Nobody writes to it: it is copied to the device.
            warnings.simplefilter("ignore", UserWarning)
            return torch.from_numpy(column)

    def _static_rows(self, rows: int) -> int:
        """Return to how many rows to pad a batch, so that nothing is compiled for a size that is met but once."""
        if not self._compile or not rows:
            return rows
        size = min((known for known in {*self._sizes, self._full} if known >= rows), default=rows)
        self._sizes.add(size)
        return size

    def _padded(self, tensor: Any, size: int) -> Any:
        last = tensor[-1:]
        return self._torch.cat([tensor, last.expand(size - len(tensor), *last.shape[1:])])

    def _forward(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            args, keywords = self._arguments(value)
            return self._run(*map(self._cast, args), **{name: self._cast(each) for name, each in keywords.items()})
        return self._run(*map(self._cast, value)) if isinstance(value, (tuple, list)) else self._run(self._cast(value))

    def _arguments(self, columns: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        wanted = self._inputs
        if wanted is None:
            return (list(columns.values()), {}) if len(columns) == 1 else ([], dict(columns))
        names = wanted.values() if isinstance(wanted, Mapping) else wanted
        missing = [name for name in names if name not in columns]
        if missing:
            raise UserCodeError(
                f"{type(self).__name__}: there is no column {missing[0]!r} for the model", hint=f"There are: {', '.join(columns)}."
            )
        if isinstance(wanted, Mapping):
            return [], {argument: columns[name] for argument, name in wanted.items()}
        return [columns[name] for name in wanted], {}

    def _cast(self, value: Any) -> Any:
        torch = self._torch
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            return value
        layout = torch.channels_last if self._channels_last and value.dim() == 4 else torch.preserve_format
        return value.to(dtype=value.dtype if self._autocast or self._dtype is None else self._dtype, memory_format=layout)

    @contextlib.contextmanager
    def _casting(self) -> Iterator[None]:
        if not self._autocast:
            yield
            return
        with self._torch.autocast(self._device.type, dtype=self._dtype):
            yield

    def _named(self, output: Any) -> dict[str, Any]:
        names = self._outputs
        if isinstance(output, Mapping):
            missing = [name for name in names or () if name not in output]
            if missing:
                raise UserCodeError(f"the model returned no {missing[0]!r}", hint=f"It returned: {', '.join(map(str, output))}.")
            return {name: output[name] for name in names or output}
        members = list(output) if isinstance(output, (tuple, list)) else [output]
        if names is None:
            names = ["output"] if len(members) == 1 else [f"output_{index}" for index in range(len(members))]
        if len(names) != len(members):
            raise UserCodeError(f"the model returned {len(members)} values, and outputs names {len(names)}: {', '.join(names)}")
        return dict(zip(names, members, strict=True))

    def _fetched(self, column: Any, size: int, rows: int) -> Any:
        """Start copying a result to the host, less the rows that were padded, in a type that others know."""
        if size > rows and len(column) == size:
            column = column[:rows]
        if not isinstance(column, self._torch.Tensor):
            return column
        column = column.detach()
        if column.dtype == self._torch.bfloat16:
            column = column.float()
        # Not blocking means into pinned memory.
        return column.to("cpu", non_blocking=self._on_gpu)

    def _event(self) -> Any:
        if not self._on_gpu:
            return None
        # Blocking means that who waits sleeps: the cores have images to decode.
        event = self._torch.cuda.Event(blocking=True)
        event.record()
        return event
