"""One line on what would make the pipeline faster. Pure."""

from __future__ import annotations

import math

from antinfer.worker.profiling.model import CORES, Forecast, Measurement, Profile, StageProfile, scaling

_POOR_SCALING = 0.6
"""Of what so many copies could do at best."""
_MUCH_GIL = 0.5

_AT_THE_ENDS = {
    "reader": "read fewer columns (source.columns), or keep the input in more or less compressed files",
    "writer": "return fewer columns, or choose a cheaper compression (sink.options.compression)",
    "accumulators": "leave accumulators out, or compute them from the output",
}


def advise(profile: Profile, forecast: Forecast) -> str:
    """Say which stage is the bottleneck, why, and what to do about it."""
    stage = profile.stage(forecast.bottleneck)
    assert stage is not None
    if forecast.limit == CORES:
        return _more_cores(profile, forecast, stage)
    if stage.kind in _AT_THE_ENDS:
        what = "reading" if stage.kind == "reader" else "writing" if stage.kind == "writer" else "updating accumulators"
        return f"{what} is the bottleneck: {_AT_THE_ENDS[stage.kind]}"
    if stage.devices:
        return _faster_gpu(forecast, stage)
    return f"{stage.name} is the bottleneck{_why(stage)}: {_faster_stage(profile, forecast, stage)}"


def _more_cores(profile: Profile, forecast: Forecast, stage: StageProfile) -> str:
    cpu = {each.name: each.cores for each in forecast.stages}
    share = cpu[stage.name] / sum(cpu.values())
    head = f"{stage.name} is the bottleneck: it takes {share:.0%} of the CPU time, and all {profile.cores} cores are busy"
    gpus = [each for each in forecast.stages if (found := profile.stage(each.name)) is not None and found.devices]
    wanted = min((each.ceiling for each in gpus if each.ceiling is not None), default=None)
    if wanted is None:
        way = f"each further core adds about {forecast.rate / profile.cores:,.0f} rows/s"
    else:
        more = max(1, math.ceil(profile.cores * (wanted / forecast.rate - 1)))
        way = f"{more} more core{'s' * (more != 1)} would keep the GPU busy ({wanted:,.0f} rows/s)"
    is_hybrid = any(each.hybrid == stage.name for each in profile.stages)
    return f"{head}; {way}{', or give it an on_gpu' if gpus and stage.kind == 'map_batches' and not is_hybrid else ''}"


def _faster_gpu(forecast: Forecast, stage: StageProfile) -> str:
    shared = "" if forecast.limit == stage.name else f" on {forecast.limit}, which several stages share"
    return f"{stage.name} is the bottleneck{shared}: another GPU, or a cheaper model (bfloat16, torch.compile, larger batches)"


def _why(stage: StageProfile) -> str:
    at = stage.best
    assert at is not None
    single = next((each for each in stage.measurements if each.runs_as == "threads" and each.gil_share is not None), None)
    # Whoever waits holds nothing: what was in the way of taking the GIL then was a busy machine.
    gil = single.gil_share if single is not None and not _waits(at) else None
    if at.runs_as == "threads" and gil is not None and gil >= _MUCH_GIL:
        return f", and holds the GIL {gil:.0%} of the time"
    most = _most_copies(stage)
    times = scaling(most, stage.measurements)
    if times is not None and most.degree > 1 and times < _POOR_SCALING * most.degree:
        return f", and {most.degree} copies are only {times:.1f} times as fast as one"
    return ""


def _faster_stage(profile: Profile, forecast: Forecast, stage: StageProfile) -> str:
    at = stage.best
    assert at is not None
    idle = profile.cores - forecast.cores_used
    waits = _waits(at)
    if stage.concurrency is not None and at.degree >= stage.concurrency and (waits or idle >= 1):
        spare = "it waits more than it computes" if waits else f"{idle:.0f} core{'s are' if idle >= 1.5 else ' is'} idle"
        return f"{spare}, so raise its concurrency from {stage.concurrency}"
    if stage.kind == "predict":
        return "a cheaper model, or a GPU (num_gpus)"
    ran = {each.runs_as for each in stage.measurements}
    if ran == {"threads"} and _why(stage):
        return "let it run in processes (workers_as: processes)"
    return "make it cheaper, or spread the job over more machines"


def _waits(at: Measurement) -> bool:
    """Tell whether it waits more than it computes."""
    return at.cpu_seconds_per_row * at.rows_per_second < 0.5 * at.degree


def _most_copies(stage: StageProfile) -> Measurement:
    at = stage.best
    assert at is not None
    return max((each for each in stage.measurements if each.runs_as == at.runs_as), key=lambda each: each.degree)
