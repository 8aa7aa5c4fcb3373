"""Dates of certificates, read without a library and compared with what one reads."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from antinfer.errors import MachineError, UsageError
from antinfer.launchers.certificates import make_certificates
from antinfer.rpc.validity import check_validity, periods

NOW = datetime(2030, 5, 17, 12, 30, 15, tzinfo=UTC)


@pytest.mark.parametrize("now", [NOW, NOW.replace(year=2049, month=12), NOW.replace(year=2070)], ids=["short", "both", "long"])
def test_the_dates_are_those_that_a_library_reads(now: datetime) -> None:
    made = make_certificates(["m.ns"], now)
    pems = [made.ca, *(each.cert for each in made.identities.values())]
    known = [x509.load_pem_x509_certificate(pem) for pem in pems]
    assert list(periods(b"".join(pems), "it")) == [(each.not_valid_before_utc, each.not_valid_after_utc) for each in known]


def test_a_certificate_is_valid_an_hour_early_and_for_a_year() -> None:
    ca = make_certificates(["m.ns"], NOW).ca
    check_validity(ca, "it", NOW - timedelta(minutes=59))
    check_validity(ca, "it", NOW + timedelta(days=364))
    with pytest.raises(UsageError, match=r"it has expired on 2031-05-17 12:30 UTC") as expired:
        check_validity(ca, "it", NOW + timedelta(days=366))
    assert "the clock wrong? It says 2031-05-18" in expired.value.hint
    with pytest.raises(
        MachineError, match=r"it is not valid before 2030-05-17 11:30 UTC, and the clock of this machine says 2030-05-17 10:30"
    ):
        check_validity(ca, "it", NOW - timedelta(hours=2))


def test_what_is_no_certificate_is_called_that() -> None:
    with pytest.raises(UsageError, match="it holds no certificate"):
        check_validity(b"ssh-rsa AAAA", "it", NOW)
    whole = make_certificates(["m.ns"], NOW).ca
    lines = whole.splitlines()
    for damaged in ([lines[0], lines[1], lines[-1]], [lines[0], lines[2], *lines[2:]], [lines[0], b"AAAA", lines[-1]]):
        with pytest.raises(UsageError, match="it holds a damaged certificate"):
            check_validity(b"\n".join(damaged), "it", NOW)
