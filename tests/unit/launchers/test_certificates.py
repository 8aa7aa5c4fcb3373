"""The certificates of a job: who can do what with them, and what is said about those that others have made."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from antinfer.errors import UsageError
from antinfer.launchers.certificates import WHO, Certificates, make_certificates, read_certificates

NOW = datetime(2030, 5, 17, tzinfo=UTC)
NAMES = ["m.ns", "m.ns.svc"]


def write(folder: Path, made: Certificates) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "ca.crt").write_bytes(made.ca)
    for who, identity in made.identities.items():
        (folder / f"{who}.crt").write_bytes(identity.cert)
        (folder / f"{who}.key").write_bytes(identity.key)
    return folder


def test_each_certificate_is_good_for_one_role() -> None:
    made = make_certificates(NAMES, NOW)
    authority = x509.load_pem_x509_certificate(made.ca)
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value == x509.BasicConstraints(ca=True, path_length=0)
    usages = {}
    for who in WHO:
        certificate = x509.load_pem_x509_certificate(made.identities[who].cert)
        certificate.verify_directly_issued_by(authority)
        (usage,) = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        usages[who] = usage
        assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    server, client = x509.ExtendedKeyUsageOID.SERVER_AUTH, x509.ExtendedKeyUsageOID.CLIENT_AUTH
    assert usages == {"master": server, "worker": client, "admin": client}


def test_keys_are_not_printed() -> None:
    made = make_certificates(NAMES, NOW)
    assert "PRIVATE" not in repr(made)


def test_certificates_that_somebody_else_made_are_read(tmp_path: Path) -> None:
    made = make_certificates(NAMES[1:], NOW)
    found = read_certificates(write(tmp_path / "own", made), NAMES, NOW)
    assert found == made
    assert found.server_name == "m.ns.svc"
    wide = make_certificates(["*.ns"], NOW)
    assert read_certificates(write(tmp_path / "wide", wide), NAMES, NOW).server_name == "m.ns"


def test_what_is_wrong_with_certificates_is_said(tmp_path: Path) -> None:
    folder = write(tmp_path, make_certificates(NAMES, NOW))
    with pytest.raises(UsageError, match=r"ca.crt has expired on 2031-05-17"):
        read_certificates(folder, NAMES, NOW + timedelta(days=370))
    with pytest.raises(UsageError, match=r"of the master is for m.ns, m.ns.svc, and not for the master of this job") as other:
        read_certificates(folder, ["other.ns"], NOW)
    assert "one of other.ns" in other.value.hint
    worker_key = (folder / "worker.key").read_bytes()
    (folder / "worker.key").write_bytes((folder / "admin.key").read_bytes())
    with pytest.raises(UsageError, match=r"worker.key is not the key of the certificate beside it"):
        read_certificates(folder, NAMES, NOW)
    (folder / "worker.key").write_bytes(worker_key[:100])
    with pytest.raises(UsageError, match=r"worker.key is no private key"):
        read_certificates(folder, NAMES, NOW)
    (folder / "admin.crt").unlink()
    with pytest.raises(UsageError, match=r"cannot read .*admin.crt"):
        read_certificates(folder, NAMES, NOW)
