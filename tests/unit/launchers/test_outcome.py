"""What a master tells its launcher."""

from __future__ import annotations

from antinfer.errors import ChangedError, StoreError, UserCodeError, split_hint
from antinfer.launchers.outcome import Outcome
from antinfer.master.store.faults import PassingError


def test_outcome_goes_through_a_file_whole(tmp_path):
    told = Outcome.of(UserCodeError("it raised", hint="mend it", user_traceback="Traceback ..."))

    told.write(tmp_path / "outcome")

    assert Outcome.read(tmp_path / "outcome") == told
    error = told.to_error()
    assert isinstance(error, UserCodeError)
    assert (str(error), error.hint, error.user_traceback) == ("it raised", "mend it", "Traceback ...")


def test_no_outcome_means_that_the_master_was_killed(tmp_path):
    assert Outcome.read(tmp_path / "outcome") is None


def test_error_class_of_an_adapter_arrives_as_the_class_it_belongs_to():
    error = Outcome.of(PassingError("the store is away", hint="look at it")).to_error()

    assert type(error) is StoreError
    assert type(Outcome.of(ChangedError("changed")).to_error()) is ChangedError


def test_message_and_hint_travel_as_one_text():
    assert split_hint(ChangedError("a: b\nc", hint="do: this").text) == ("a: b\nc", "do: this")
    assert split_hint(ChangedError("alone").text) == ("alone", "")
