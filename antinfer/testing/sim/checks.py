"""What must hold of the output: looked at whenever a name appears, and whole at the end."""

from __future__ import annotations

from collections import Counter

from antinfer.core.records import parse_output_name
from antinfer.storage import layout
from antinfer.testing.sim import proof
from antinfer.testing.sim.judge import guilty
from antinfer.testing.sim.stage import Stage

Row = tuple[int, int]


class Auditor:
    """Looks at the output place of one run."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._place = stage.place
        self._guilty = guilty(stage.scenario)
        self._overlaps_matter = stage.scenario.output != "copies"
        """A copy that was on its way when its master fell is removed before the end, not before it is seen."""
        stage.place.on_change = self.look

    def look(self) -> None:
        """No row is visible twice, at any time."""
        if self._overlaps_matter:
            self._find_doubled(self._count_rows(), "is visible")

    def finish(self) -> None:
        """The job is over, and nothing moves any more: every row is there once, and everything that counts rows agrees."""
        place, stage = self._place, self._stage
        counts = self._count_rows()
        self._find_doubled(counts, "is in the output")
        lost = [row for row in self._all_rows() if counts[row] == 0]
        if lost:
            self._blame("lost", f"rows {lost} are not in the output")
        kept = proof.published(place, proof.read_all(place))
        if self._place.success is None:
            self._blame("stuck", "the mark of success is gone again")
            return
        self._check_sums(proof.accumulated(kept))
        if len(schemas := {record.schema for record in kept if record.schema}) > 1:
            self._blame("wrong", f"parts have different columns: {sorted(schemas)}")
        named = {str(record.staged) for record in kept}
        if not stage.may_forget and (gone := stage.acknowledged - named):
            self._blame("lost", f"acknowledged commits {sorted(gone)} are not in the output")
        if unnamed := proof.orphans(place, proof.read_all(place)):
            self._blame("doubled", f"no record names {unnamed}")
        if not stage.scenario.blames_rows:
            self._check_quarantine()
        self._check_budget()

    def _check_sums(self, accumulated: Counter[Row]) -> None:
        total, success = sum(self._stage.scenario.rows), self._place.success
        assert success is not None
        rows = success["rows"]
        if rows != total or len(accumulated) + success["rows_quarantined"] != total:
            self._blame("doubled" if rows > total else "lost", f"_SUCCESS speaks of {success}, the input has {total} rows")
        outputs = sum(self._stage.scenario.outputs(*row) for row in accumulated)
        if outputs != success["rows_out"]:
            self._blame(
                "doubled" if outputs < success["rows_out"] else "lost", f"_SUCCESS speaks of {success}, there are {outputs} outputs"
            )
        twice = sorted(row for row, count in accumulated.items() if count > 1)
        if twice:
            self._blame("doubled", f"the accumulators count rows {twice} more than once")

    def _check_budget(self) -> None:
        """Where the plan itself was finished, no more rows may be in quarantine than the job allows."""
        budget, success = self._stage.scenario.engine.bad_rows, self._place.success
        assert success is not None
        if not success["round"] and budget.is_exceeded(success["rows_quarantined"], success["rows"], final=True):
            self._blame("wrong", f"the job ended with {success}, and only {budget} is allowed")

    def _check_quarantine(self) -> None:
        guilty = self._guilty
        for name, blob in self._place.objects.items():
            innocent = {(blob.record.shard, offset) for offset in blob.rows} - guilty
            if blob.kind == "quarantine" and innocent:
                self._blame("lost", f"rows {sorted(innocent)} are in quarantine ({name}), though nothing is wrong with them")

    def _count_rows(self) -> Counter[Row]:
        counts = proof.in_quarantine(self._place)
        for name, blob in self._place.objects.items():
            if blob.kind == "part" and not blob.is_torn:
                shard = parse_output_name(layout.stem(name))[0]
                counts.update((shard, offset) for offset in blob.rows)
        return counts

    def _find_doubled(self, counts: Counter[Row], where: str) -> None:
        doubled = sorted(row for row, count in counts.items() if count > 1)
        if doubled:
            self._blame("doubled", f"rows {doubled}: each {where} more than once")

    def _all_rows(self) -> list[Row]:
        return [(shard, offset) for shard, rows in enumerate(self._stage.scenario.rows) for offset in range(rows)]

    def _blame(self, kind: str, text: str) -> None:
        self._stage.world.blame(kind, text)
