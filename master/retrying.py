"""Retry rounds: whether one may begin, its durable beginning, and what of the job it changes.

The order of a beginning makes it safe to be killed anywhere, and to begin again: first the round itself, which from then on is the work of
every master of this output; then the mark of the job that retries; last the removal of the older mark of success.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

from antinfer import faultpoints
from antinfer.core.plan import Shard
from antinfer.core.rounds import Round
from antinfer.errors import ChangedError, InternalError, UsageError
from antinfer.master.jobfile import JobMark
from antinfer.spec.canonical import explain_changes
from antinfer.storage import layout, rounds
from antinfer.storage.place import OutputPlace

_MERGED = ("accumulators", "carryover")
"""Parts of the pipeline's concern that old and new results must have in common."""


def is_due(place: OutputPlace, today: JobMark, number: int) -> bool:
    """Tell whether round `number` is still to be done; touches nothing.

    Raises:
        UsageError: The job is not finished yet, or the round cannot be the next one.
        ChangedError: More than pipeline and code differ from the job that wrote the output.
    """
    _check_changes(place, today)
    newest, sealed = rounds.newest(place), rounds.sealed(place)
    if sealed is not None and sealed >= number:
        return False
    if newest == number:
        return True
    if sealed is None or newest != number - 1 or sealed != newest:
        raise UsageError(
            f"{place.uri} is not finished: what failed is retried when every row has been tried once",
            hint=f"go on with `antinfer resume {place.uri}`; with code that is fixed already: `antinfer run JOB --force`",
        )
    return has_quarantined(place)


def has_quarantined(place: OutputPlace) -> bool:
    """Tell whether a finished output has rows in quarantine, by what its mark of success says."""
    data = place.read(layout.SUCCESS)
    return data is not None and bool(json.loads(data).get("rows_quarantined"))


def begin(place: OutputPlace, today: JobMark, number: int, suffix: str, still_rules: Callable[[], None]) -> None:
    """Open round `number` unless it is open, and let `today` be the job of this output; after the claim.

    Args:
        place: the output.
        today: the job that retries.
        number: of the round; `is_due` was true for it.
        suffix: of parts, without a dot.
        still_rules: raises when another master rules by now; called before every change.
    """
    if not is_due(place, today, number):
        # Another master was quicker, and there is nothing left but to see so.
        return
    if rounds.newest(place) < number:
        opened = _planned(place, number, suffix)
        still_rules()
        faultpoints.hit("round.open")
        rounds.write(place, opened)
        faultpoints.hit("round.opened")
    still_rules()
    today.write(place)
    faultpoints.hit("round.marked")


def current(place: OutputPlace, still_rules: Callable[[], None]) -> Round | None:
    """Return the round that a master of this output works on, None for the plan itself; an older mark of success goes now."""
    newest = rounds.newest(place)
    if not newest:
        return None
    sealed = rounds.sealed(place)
    if sealed is not None and sealed < newest:
        still_rules()
        place.remove((layout.SUCCESS,))
    return rounds.read(place, newest)


def handed_out(shard: Shard, ruled: Round | None) -> Shard:
    """Return `shard` of the plan as a worker needs it in the round that is ruled over."""
    return shard if ruled is None else replace(shard, retry=ruled.hand_out(shard))


def job_name(job: str, ruled: Round | None) -> str:
    """Return the job id that workers go by: one that was started for another round has other work, and other code."""
    return job if ruled is None else f"{job}-r{ruled.number}"


def _planned(place: OutputPlace, number: int, suffix: str) -> Round:
    from antinfer.storage import manifest
    from antinfer.storage.planfile import PlanFile

    records = manifest.published(place, manifest.Listing.of(place), suffix, manifest.read_all(place))
    planned = rounds.plan_round(place, number, records, PlanFile(place).load().index)
    if not planned.rows:
        raise InternalError(f"{place.uri}: {layout.SUCCESS} speaks of rows in quarantine, but there are none")
    return planned


def _check_changes(place: OutputPlace, today: JobMark) -> None:
    began = JobMark.read(place)
    if began is None:
        raise UsageError(f"{place.uri} holds no job", hint="Name the folder that the job wrote to.")
    concerns = {concern for concern, digest in today.fingerprints.items() if began.fingerprints.get(concern) != digest} - {"all"}
    merged = [field for field in _MERGED if began.spec.get(field) != today.spec.get(field)]
    if not concerns - {"pipeline"} and not merged:
        return
    changes = explain_changes(json.dumps(began.spec), json.dumps(today.spec))
    said = "; ".join(change for change in changes if not change.startswith("pipeline.")) or "its fingerprint differs"
    raise ChangedError(
        f"a retry adds to the results in {place.uri}, but the job is another one: {said}",
        hint="Only pipeline and code may change for a retry. Undo the other changes, or choose another sink.path.",
    )
