"""What the stages of a pipeline demand of each other."""

from __future__ import annotations

from collections.abc import Sequence

from antinfer.spec.normal import all_stages
from antinfer.spec.stages import StageSpec


def check(stages: Sequence[StageSpec]) -> None:
    """Check a pipeline whose stages are fine one by one. Raises ValueError that says which stage and why."""
    names = [stage.name for stage in all_stages(stages) if stage.name]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two stages are named {twice[0]!r}; stage names must differ")
    _check_chain(stages, "")


def check_reproducible(stages: Sequence[StageSpec]) -> None:
    """Check that batches do not depend on what is measured. Raises ValueError that names the stage."""
    every = list(all_stages(stages))
    for stage, following in zip(every, [*every[1:], None], strict=True):
        if stage.on_gpu and following is not None and following.batch_size != stage.batch_size:
            raise ValueError(
                f"reproducible: the stages {stage.name!r} and {following.name!r} need the same batch_size, since on_gpu joins them"
            )
        if stage.kind in ("map_batches", "predict") and stage.batch_size == "auto":
            raise ValueError(
                f"reproducible: stage {stage.name!r} needs a number as its batch_size, since auto depends on what the worker measures"
            )
        if stage.on_gpu and stage.gpu_share not in (0, 1):
            raise ValueError(f"reproducible: stage {stage.name!r} needs gpu_share 0 or 1; else speed decides which rows on_gpu does")


def named(stages: Sequence[StageSpec]) -> tuple[StageSpec, ...]:
    """Return the same stages, each with a name of its own."""
    every = list(all_stages(stages))
    taken = {stage.name for stage in every if stage.name}

    def name_of(stage: StageSpec) -> str:
        stem = stage.target.rpartition(":")[2].rpartition(".")[2] or stage.kind
        name = next(n for n in (stem, *(f"{stem}-{i}" for i in range(2, len(every) + 2))) if n not in taken)
        taken.add(name)
        return name

    def chain(part: Sequence[StageSpec]) -> tuple[StageSpec, ...]:
        return tuple(
            stage.model_copy(
                update={
                    "name": stage.name or name_of(stage),
                    "parallel": {branch: chain(inner) for branch, inner in stage.parallel.items()},
                }
            )
            for stage in part
        )

    return chain(stages)


def _check_chain(stages: Sequence[StageSpec], where: str) -> None:
    """Check one list of stages; `where` names the branch that it is, with a blank behind, and is empty for the pipeline itself."""
    depth = 0
    for index, stage in enumerate(stages):
        depth += {"flat_map": 1, "gather": -1}.get(stage.kind, 0)
        if depth < 0:
            raise ValueError(f"{where}stage {index} gathers what no flat_map before it has spread out")
        if stage.on_gpu:
            _check_hybrid(stage, stages[index + 1] if index + 1 < len(stages) else None, f"{where}stage {index}")
        if stage.kind == "parallel":
            for branch, inner in stage.parallel.items():
                _check_chain(inner, f"{where}stage {index}, branch {branch!r}: ")
            _check_names(stage, f"{where}stage {index}")
    if depth and where:
        raise ValueError(f"{where}a flat_map is not closed; add gather: {{into: column}}, since branches meet row by row")


def _check_names(stage: StageSpec, where: str) -> None:
    """Find columns that two branches return, as far as that is known before they run."""
    seen: dict[str, str] = {}
    for branch, inner in stage.parallel.items():
        if inner[-1].kind != "gather":
            continue
        into = inner[-1].into
        if into in seen:
            raise ValueError(f"{where}: the branches {seen[into]!r} and {branch!r} both gather into {into!r}; name one of them otherwise")
        seen[into] = branch


def _check_hybrid(stage: StageSpec, following: StageSpec | None, where: str) -> None:
    if following is None or following.kind != "predict" or not following.num_gpus or following.when or following.bucket_by:
        raise ValueError(
            f"{where}: on_gpu runs inside a predictor: right behind must come a predict with num_gpus above 0, without when and bucket_by"
        )
