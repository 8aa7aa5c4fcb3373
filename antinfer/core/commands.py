"""What must be done: the only outputs of `engine.step`.

The shell carries a command out only when the state that the step left behind is durable under the fence (rules 3 and 4): commands of a
batch whose persistence failed are dropped. Every command is idempotent and may be given again by a later master.
"""

from __future__ import annotations

from antinfer.core.events import StreamId
from antinfer.core.messages import Downward
from antinfer.core.records import CommitRecord
from antinfer.core.values import value


@value
class Send:
    """Send a message down a stream; a stream that is gone swallows it."""

    stream: StreamId
    message: Downward


@value
class Publish:
    """Check that no higher epoch has claimed the output place, then give the objects their final names; ends in `Published`."""

    records: tuple[CommitRecord, ...]


@value
class Flush:
    """Append the records to the manifest, durably; ends in `Flushed`."""

    records: tuple[CommitRecord, ...]


@value
class ListStaging:
    """List staging; ends in `StagingListed`."""


@value
class Collect:
    """Delete these staged objects: nobody will ever publish them (rule 5)."""

    staged: tuple[str, ...]


@value
class SweepStaging:
    """Delete or abort every staged object of an epoch below `before`, except `keep`; ends in `StagingSwept`."""

    before: int
    keep: tuple[str, ...]


@value
class Recover:
    """Publish those of the records whose rows no other object in the output holds; ends in `Published`, the others among the missing.

    Another store may have ruled over the output since these records were written, and done their rows again.
    """

    records: tuple[CommitRecord, ...]


@value
class ListOutput:
    """Read manifest, parts and record objects, and remove quarantine and record objects that have no part and no record
    (rule 14); ends in `OutputListed`."""


@value
class AuditOutput:
    """List the final names, remove parts that no record in the manifest names, and report them; ends in `OutputAudited`."""


@value
class Seal:
    """Write the final manifest, the report and ``_SUCCESS``; ends in `Sealed`."""

    rows: int
    """Input rows committed: the manifest must add up to as many."""


@value
class GiveUp:
    """The job has failed for good: report `reason`, keep everything that was committed, stop."""

    reason: str
    traceback: str = ""


Command = Send | Publish | Flush | ListStaging | Collect | SweepStaging | Recover | ListOutput | AuditOutput | Seal | GiveUp
