"""Log lines for people and for collectors."""

from __future__ import annotations

import json
import logging

import pytest

from antinfer.telemetry.logs import configure_logging


@pytest.fixture
def root():
    logger = logging.getLogger("antinfer")
    before = (logger.handlers[:], logger.level, logger.propagate)
    yield logger
    logger.handlers[:], logger.propagate = before[0], before[2]
    logger.setLevel(before[1])


def test_people_read_the_fields_behind_the_message(root, capsys):
    configure_logging()

    logging.getLogger("antinfer.master").warning("the store is away", extra={"action": "store_lost", "store": "redis://h:1/0", "empty": ""})

    assert capsys.readouterr().err.rstrip().endswith("WARNING the store is away  [store=redis://h:1/0]")


def test_marks_that_a_library_puts_on_every_record_are_left_out(root, capsys):
    usual = logging.getLogRecordFactory()

    def marked(*args, **keys):
        record = usual(*args, **keys)
        record._mark = 1
        return record

    logging.setLogRecordFactory(marked)
    try:
        configure_logging()
        logging.getLogger("antinfer.master").warning("the store is away", extra={"store": "redis://h:1/0"})
    finally:
        logging.setLogRecordFactory(usual)
    assert capsys.readouterr().err.rstrip().endswith("WARNING the store is away  [store=redis://h:1/0]")


def test_ordinary_life_is_told_only_when_asked_for(root, capsys):
    configure_logging()
    logging.getLogger("antinfer.worker").info("drained", extra={"action": "drain"})
    assert capsys.readouterr().err == ""

    configure_logging(verbose=True)
    logging.getLogger("antinfer.worker").info("drained", extra={"action": "drain"})
    assert capsys.readouterr().err.rstrip().endswith("INFO drained")


def test_collectors_read_one_object_a_line(root, capsys):
    configure_logging(form="json")
    try:
        raise ValueError("no")
    except ValueError:
        logging.getLogger("antinfer.master").exception("broken", extra={"action": "give_up", "epoch": 3})

    (line,) = capsys.readouterr().err.splitlines()
    told = json.loads(line)
    assert (told["level"], told["logger"], told["message"]) == ("ERROR", "antinfer.master", "broken")
    assert (told["action"], told["epoch"]) == ("give_up", 3)
    assert "ValueError: no" in told["traceback"]
