"""The rules of the commit protocol, one test each: switched off, rows are lost, doubled or stuck; switched on, the same play ends well.

A rule of the core or of the session is a function of its `guards` module, replaced here. A rule of the shell is a switch of the simulator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import pytest

from antinfer.core import guards, records
from antinfer.core.ids import lease_of
from antinfer.core.messages import Acceptance, Answer, Heartbeat, Request
from antinfer.core.ranges import Rows
from antinfer.testing import sim
from antinfer.worker import guards as worker_guards

SEEDS = range(8)
PATIENT = replace(
    sim.ENGINE, ranges=replace(sim.ENGINE.ranges, split_after=500, quarantine_after=1_000, losses_after=1_000), copy_after_ms=None
)


def goes_wrong(scenario: sim.Scenario, kind: str) -> bool:
    """Tell whether some seed shows a violation of this kind."""
    for seed in SEEDS:
        outcome = sim.run(scenario, seed)
        if kind in outcome.kinds:
            print(f"without the rule, seed {seed}: {outcome.problems[0].text}")
            return True
    return False


def assert_needed(scenario: sim.Scenario, kind: str, off: sim.Scenario | None = None, **patches: tuple[Any, Callable[..., Any]]) -> None:
    """Assert that `scenario` ends well, and that without the rule (`off`, or `patches`: name -> module, replacement) rows go wrong."""
    with pytest.MonkeyPatch.context() as patch:
        for name, (module, replacement) in patches.items():
            patch.setattr(module, name, replacement)
        assert goes_wrong(off or scenario, kind), f"without the rule nothing was {kind}"
    for seed in SEEDS:
        outcome = sim.run(scenario, seed)
        assert outcome.ok, outcome.transcript()


def first_acceptance_is_lost(stage: sim.Stage) -> None:
    """The answer to the first accepted commit gets lost, and its worker is away until its session has ended."""
    done = False

    def loses(message: object) -> bool:
        nonlocal done
        if done or not isinstance(message, Answer) or not any(each.acceptance is Acceptance.ACCEPTED for each in message.outcomes):
            return False
        done = True
        stage.network.cut_off(stage.workers["w1"], 900)
        return True

    stage.network.loses = loses


def test_rule_01_a_worker_deletes_nothing_that_it_asked_to_commit() -> None:
    scenario = sim.Scenario(
        "rule 1", rows=(3,), workers=1, output="uploads", flight_ms=3_000, script=first_acceptance_is_lost, engine=PATIENT
    )
    assert_needed(
        scenario,
        "lost",
        about_lost_objects=(worker_guards, lambda lost: [sim.DeleteStaged(record.staged) for record in lost]),
    )


def test_rule_01_a_repeated_commit_is_known_when_its_lease_is_gone() -> None:
    """A worker that removes what was refused: the real one removes nothing, but a refusal has to mean that nobody recorded it."""

    def script(stage: sim.Stage) -> None:
        done = False

        def loses(message: object) -> bool:
            nonlocal done
            if done or not isinstance(message, Answer) or not any(each.acceptance is Acceptance.ACCEPTED for each in message.outcomes):
                return False
            done = True
            return True

        stage.network.loses = loses

    scenario = sim.Scenario("rule 1, repeated", rows=(3,), workers=1, output="uploads", flight_ms=3_000, script=script, engine=PATIENT)
    assert_needed(scenario.without(spares_refused=False), "lost", is_recorded=(guards, lambda staged, kept: False))


def test_rule_02_a_record_stays_until_it_is_published_and_flushed() -> None:
    assert_needed(sim.Scenario("rule 2"), "lost", may_drop_record=(guards, lambda published, flushed: published or flushed))


def test_rule_03_answers_wait_for_durability() -> None:
    def script(stage: sim.Stage) -> None:
        for nth in (8, 12, 16):
            stage.world.when("m1", "stepped a batch", lambda: stage.crash("m1"), nth)

    scenario = sim.Scenario("rule 3", script=script)
    assert_needed(scenario, "lost", off=scenario.without(answers_wait=False))


def test_rule_04_effects_wait_for_durability() -> None:
    def script(stage: sim.Stage) -> None:
        stage.world.when("m1", "published the part", lambda: stage.crash("m1", "w1", "w2"))

    scenario = sim.Scenario("rule 4", script=script)
    assert_needed(scenario, "doubled", off=scenario.without(effects_wait=False))


def test_rule_05_only_what_is_known_to_be_closed_is_collected() -> None:
    scenario = sim.Scenario("rule 5", engine=replace(sim.ENGINE, collect_ms=40))
    assert_needed(scenario, "lost", may_collect=(guards, lambda staged, standing, kept, closed_below: staged not in kept))


def test_rule_05_an_unknown_lease_is_never_garbage() -> None:
    """Two stores on one output: the master that was passed over knows nothing of the other one's leases."""

    def script(stage: sim.Stage) -> None:
        def strike() -> None:
            stage.masters["m1"].pause()
            stage.network.lose(stage.masters["m1"])
            stage.masters["m2"].start()
            watch("w1.host")
            watch("w2.host")

        def watch(host: str) -> None:
            stage.world.when(host, "synced staging", lambda: wake_or_watch(host))

        def wake_or_watch(host: str) -> None:
            if any(lease_of(staged).epoch == 2 for staged in stage.place.list_staging()):
                stage.masters["m1"].resume()
            else:
                watch(host)

        stage.world.when("m1", "is about to list staging", strike)

    def knows_all(staged: str, standing: Any, kept: Any, closed_below: Any) -> bool:
        return staged not in kept and lease_of(staged) not in standing

    engine = replace(sim.ENGINE, collect_ms=1_000)
    scenario = sim.Scenario(
        "rule 5, unknown", rows=(2, 2), masters=2, store="separate", row_ms=(1_100, 1_300), prefix=1.0, script=script, engine=engine
    )
    assert_needed(scenario, "lost", may_collect=(guards, knows_all))


def test_rule_06_rows_are_pending_only_when_their_last_lease_has_ended() -> None:
    def freed(rows: Rows, others: object) -> list[Rows]:
        return [rows]

    scenario = sim.SCENARIOS["second copies"].but(name="rule 6")
    assert_needed(scenario, "doubled", rows_freed=(guards, freed))


def test_rule_07_manifest_records_count_once() -> None:
    def script(stage: sim.Stage) -> None:
        stage.world.when("m1", "wrote a chunk", lambda: stage.crash("m1"))

    assert_needed(sim.Scenario("rule 7", script=script), "doubled", distinct=(records, list))


def test_rule_08_the_store_is_looked_at_again_after_every_reconnect() -> None:
    """A batch whose sync was under way is lost with the server; asked on a new connection, WAITAOF has nothing to wait for."""

    def script(stage: sim.Stage) -> None:
        def strike() -> None:
            stage.store.restart()
            stage.world.when("m1", "looked at the epochs", lambda: stage.crash("m1"))

        stage.world.when("m1", "waits for the sync", strike, 10)

    scenario = sim.Scenario("rule 8", sync="waitaof", script=script)
    assert_needed(scenario, "lost", off=scenario.without(checks_connection=False))


def test_rule_08_a_batch_is_applied_in_its_place_alone() -> None:
    """The server reads a batch once more, from a connection that broke, when the next batches have long been applied."""

    def script(stage: sim.Stage) -> None:
        def strike() -> None:
            client = stage.masters["m1"].client
            assert client is not None
            client.disconnect()
            stage.at(60, lambda: stage.crash("m1"))

        stage.world.when("m1", "sent to the store", strike, 8)

    scenario = sim.Scenario("rule 8, batches", script=script)
    assert_needed(scenario, "doubled", off=scenario.without(checks_batches=False))


def test_rule_09_a_reign_is_claimed_in_the_output_place() -> None:
    scenario = sim.Scenario("rule 9", masters=2, store="separate", script=lambda stage: stage.at(0, stage.masters["m2"].start))
    assert_needed(scenario, "doubled", off=scenario.without(claims_output=False))


def test_rule_10_leases_that_nobody_holds_come_back() -> None:
    """A worker that forgets a request whose answer it did not get: the real one repeats it, but the protocol does not count on that."""

    def script(stage: sim.Stage) -> None:
        done = False

        def loses(message: object) -> bool:
            nonlocal done
            if done or not isinstance(message, Answer) or not message.grants:
                return False
            done = True
            stage.network.cut_off(stage.workers["w1"], 50)
            return True

        stage.network.loses = loses

    scenario = sim.Scenario("rule 10", workers=1, engine=PATIENT, script=script, patience_ms=8_000).without(repeats_requests=False)
    assert_needed(scenario, "stuck", unheld=(guards, lambda granted, held, answered: []))


def test_rule_10_heartbeats_are_of_one_instant() -> None:
    """On a slow network: one that names an answer, but not yet the leases that came with it, gives those back, again and again."""

    def script(stage: sim.Stage) -> None:
        stage.network.latency_ms = (200, 300)

    scenario = sim.Scenario(
        "rule 10, heart-beats", rows=(1,), workers=1, row_ms=(400, 500), engine=PATIENT, script=script, patience_ms=12_000
    )
    assert_needed(scenario, "stuck", heartbeat=(worker_guards, lambda session, held, answered: Heartbeat(session, held, answered + 1)))


def test_rule_11_an_old_store_is_not_believed() -> None:
    def script(stage: sim.Stage) -> None:
        stage.at(200, lambda: stage.lose_store(wipe=False))

    assert_needed(sim.Scenario("rule 11", script=script), "doubled", store_is_current=(guards, lambda *facts, **more: True))


def test_rule_11_staging_is_swept_before_the_output_is_listed() -> None:
    """The first master sleeps in the middle of a publication, and the store forgets that it was commanded."""

    def script(stage: sim.Stage) -> None:
        def strike() -> None:
            stage.pause("m1", 200)
            stage.lose_store(wipe=True)
            stage.masters["m2"].start()

        stage.world.when("m1", "looked for the part", strike, 2)

    scenario = sim.Scenario("rule 11, sweep", masters=2, row_ms=(60, 120), script=script)
    assert_needed(scenario, "doubled", off=scenario.without(sweeps=False))


def test_rule_12_parts_without_a_record_are_removed_before_success() -> None:
    """Where publication is a server-side copy, one that was on its way lands after the listing; no sweep can stop it."""

    def script(stage: sim.Stage) -> None:
        def strike() -> None:
            stage.lose_store(wipe=True)
            stage.crash("m1")

        stage.world.when("m1", "asked to copy the part", strike)

    scenario = sim.Scenario("rule 12", output="copies", flight_ms=300, row_ms=(60, 120), script=script)
    assert_needed(scenario, "doubled", off=scenario.without(audits=False))


def test_rule_13_lease_ids_are_never_used_again() -> None:
    scenario = sim.Scenario("rule 13", weather=sim.Weather(crash={"master": 0.05}))
    assert_needed(scenario, "doubled", off=scenario.without(counts_epochs=False))


def test_rule_13_what_was_staged_under_another_lease_is_not_committed() -> None:
    """A worker that goes on with what it staged before its session ended: the real one forgets it, but the master collects it anyhow."""

    def script(stage: sim.Stage) -> None:
        done = False

        def loses(message: object) -> bool:
            nonlocal done
            if done or not isinstance(message, Request) or not message.commits:
                return False
            done = True
            stage.network.cut_off(stage.workers["w1"], 900)
            return True

        stage.network.loses = loses

    engine = replace(PATIENT, collect_ms=40)
    scenario = sim.Scenario("rule 13, staged name", rows=(3,), workers=1, script=script, engine=engine).without(forgets_former=False)
    assert_needed(scenario, "lost", commit_belongs=(guards, lambda record, lease, holder, session: holder == session))


def test_rule_14_quarantine_objects_without_their_part_are_removed() -> None:
    def script(stage: sim.Stage) -> None:
        def strike() -> None:
            stage.lose_store(wipe=True)
            stage.crash("m1")

        stage.world.when("m1", "published the quarantine", strike)

    scenario = sim.Scenario("rule 14", bad=frozenset({(0, 1), (1, 1), (2, 2)}), script=script)
    assert_needed(scenario, "doubled", off=scenario.without(removes_orphans=False))


def test_rule_15_not_master_says_nothing_about_the_work() -> None:
    """Reigns change faster than a row is computed, and each one begins with a while in which it cannot answer."""

    def script(stage: sim.Stage) -> None:
        stage.world.step_ms = 14
        stage.every(1_000, lambda: stage.lose_store(wipe=True))

    scenario = sim.Scenario(
        "rule 15",
        rows=(1,),
        workers=1,
        row_ms=(1_200, 1_300),
        engine=PATIENT,
        session=replace(sim.SESSION, longest_backoff_ms=20),
        script=script,
        patience_ms=12_000,
    )
    assert_needed(scenario, "stuck", keeps_work=(worker_guards, lambda verdict: False))


def test_rule_16_a_master_that_slept_does_not_expire_everybody() -> None:
    """The rows are computed for longer than the master stays awake; each time it would blame them for the silence, at last for good."""

    def script(stage: sim.Stage) -> None:
        stage.every(900, lambda: stage.pause("m1", 700))

    scenario = sim.Scenario("rule 16", rows=(1, 1), row_ms=(6_000, 6_500), blames_rows=False, script=script, prefix=1.0, calm_ms=6_000)
    assert_needed(scenario, "lost", clock_jumped=(guards, lambda gap_ms, ttl_ms: False))


def test_rule_17_one_server_for_one_file() -> None:
    def script(stage: sim.Stage) -> None:
        stage.at(110, lambda: stage.pause("m1", 300))
        stage.at(130, stage.masters["m2"].start)
        stage.at(460, lambda: stage.crash("m2", *stage.servers.keys() & {"m2.store"}))

    scenario = sim.Scenario("rule 17", masters=2, store="embedded", script=script)
    assert_needed(scenario, "doubled", off=scenario.without(locks_directory=False))


@pytest.mark.parametrize(
    "patches",
    [{"may_regrant": (guards, lambda: False)}, {"held_ranges": (worker_guards, lambda leases: ())}],
    ids=["master", "worker"],
)
def test_rule_18_a_range_that_nobody_touched_is_granted_again(patches: dict[str, tuple[Any, Callable[..., Any]]]) -> None:
    """The network is away for longer than a session lives, again and again, and a row takes longer than it is there."""

    def script(stage: sim.Stage) -> None:
        stage.every(1_600, lambda: stage.network.cut_off(stage.workers["w1"], 800))

    scenario = sim.Scenario("rule 18", rows=(1,), workers=1, row_ms=(2_100, 2_300), engine=PATIENT, script=script, patience_ms=20_000)
    assert_needed(scenario, "stuck", **patches)


def a_master_sleeps_before_it_removes(stage: sim.Stage) -> None:
    """It has listed an unfinished commit and looked at the epochs; by the time it wakes up, those rows are done again."""

    def strike() -> None:
        stage.crash("m1", "w1")
        stage.lose_store(wipe=True)
        stage.masters["m2"].start()
        stage.world.when("m2", "is about to remove", sleep)

    def sleep() -> None:
        stage.pause("m2", 1_500)
        stage.masters["m1"].start()

    stage.world.when("m1", "published the quarantine", strike)


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
@pytest.mark.parametrize("output", ["posix", "uploads"])
def test_rule_19_what_a_master_removes_can_never_be_of_another_commit(output: Literal["posix", "uploads"], suffix: str) -> None:
    scenario = sim.Scenario(
        "rule 19",
        rows=(3, 3),
        masters=2,
        prefix=0.0,
        bad=frozenset({(0, 1), (1, 1)}),
        row_ms=(30, 60),
        output=output,
        suffix=suffix,
        script=a_master_sleeps_before_it_removes,
    )
    assert_needed(scenario, "lost", off=scenario.without(private_names=False))


def test_rule_19_no_part_is_removed_while_anything_is_left_to_publish() -> None:
    """A part that was damaged on the disk is left to the user, who moves it away; whoever slept before its removal would remove another."""

    def script(stage: sim.Stage) -> None:
        def strike() -> None:
            stage.crash("m1", "w1")
            stage.lose_store(wipe=True)
            [(name, blob)] = stage.place.objects.items()
            stage.place.objects[name] = replace(blob, is_synced=False)
            stage.at(800, lambda: stage.place.remove(name))
            stage.masters["m2"].start()
            stage.world.when("m2", "is about to remove", sleep)

        def sleep() -> None:
            stage.pause("m2", 1_500)
            stage.masters["m1"].start()

        stage.world.when("m1", "published the part", strike)

    scenario = sim.Scenario("rule 19, parts", rows=(3, 3), masters=2, prefix=0.0, row_ms=(30, 60), script=script)
    assert_needed(scenario, "lost", off=scenario.without(spares_parts=False))


def test_staged_files_are_synced_before_their_commit_is_asked_for() -> None:
    def script(stage: sim.Stage) -> None:
        stage.world.when("m1", "published the part", stage.cut_power, 2)

    scenario = sim.Scenario("section 4, step 1", store="embedded", script=script)
    assert_needed(scenario, "lost", off=scenario.without(syncs_staging=False))
