"""The certificates of one job: an authority of its own, and what master, workers and people show each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from antinfer.errors import UsageError
from antinfer.rpc.validity import check_validity

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

WHO: Final = ("master", "worker", "admin")
"""Who has a certificate and its key; in a folder, ``ca.crt`` and ``WHO.crt``, ``WHO.key``."""
_BACKDATED: Final = timedelta(hours=1)
"""So much may the clock of a node be behind that of the machine that submits."""
_LASTING: Final = timedelta(days=365)
_LONGEST_NAME: Final = 64
"""Of a subject."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate and its key (PEM)."""

    cert: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Certificates:
    """All that a job has. The key of the authority is nowhere: nobody can make more of them."""

    ca: bytes
    server_name: str
    """Name that callers expect in the certificate of the master."""
    identities: dict[str, Identity]
    """By `WHO`."""


def make_certificates(names: Sequence[str], now: datetime | None = None) -> Certificates:
    """Make an authority and certificates that it vouches for.

    Args:
        names: of the master; callers expect the first.
        now: when they are made; they are valid from an hour before, for a year.

    Raises:
        UsageError: `cryptography` is not installed.
    """
    x509, ec = _library()
    begins = (now or datetime.now(UTC)) - _BACKDATED
    key = ec.generate_private_key(ec.SECP256R1())
    title = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"authority of {names[0]}"[:_LONGEST_NAME])])
    authority = _signed(title, key, title, key, begins, _of_authority(x509))
    identities = {}
    for who in WHO:
        own = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"{who} of {names[0]}"[:_LONGEST_NAME])])
        # A worker's certificate is no good for a master: whoever gets hold of one cannot pass for the other.
        usage = x509.ExtendedKeyUsageOID.SERVER_AUTH if who == "master" else x509.ExtendedKeyUsageOID.CLIENT_AUTH
        extensions = [(x509.BasicConstraints(ca=False, path_length=None), True), (x509.ExtendedKeyUsage([usage]), False)]
        if who == "master":
            extensions.append((x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), False))
        identities[who] = _identity(_signed(subject, own, title, key, begins, extensions), own)
    return Certificates(_pem(authority), names[0], identities)


def read_certificates(folder: Path, names: Sequence[str], now: datetime | None = None) -> Certificates:
    """Read certificates that somebody else has made.

    Args:
        folder: holds ``ca.crt``, and ``.crt`` and ``.key`` of master, worker and admin.
        names: of the master; its certificate must be for one of them.
        now: when they must be valid.

    Raises:
        UsageError: A file is missing, expired, not for the name of the master, or a key that does not fit.
        MachineError: One is not valid yet.
    """
    x509, _ = _library()
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    def read(name: str) -> bytes:
        try:
            return Path(folder, name).read_bytes()
        except OSError as error:
            hint = "A folder of certificates holds ca.crt, and .crt and .key of master, worker and admin."
            raise UsageError(f"cannot read {folder / name}: {error.strerror}", hint=hint) from error

    moment = now or datetime.now(UTC)
    ca = read("ca.crt")
    check_validity(ca, str(folder / "ca.crt"), moment)
    identities = {who: Identity(read(f"{who}.crt"), read(f"{who}.key")) for who in WHO}
    spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    for who, identity in identities.items():
        check_validity(identity.cert, str(folder / f"{who}.crt"), moment)
        try:
            key = load_pem_private_key(identity.key, None).public_key().public_bytes(*spki)
        except (ValueError, TypeError) as error:
            raise UsageError(f"{folder / f'{who}.key'} is no private key, or is encrypted: {error}") from error
        if key != x509.load_pem_x509_certificate(identity.cert).public_key().public_bytes(*spki):
            raise UsageError(f"{folder / f'{who}.key'} is not the key of the certificate beside it")
    return Certificates(ca, expected_name(identities["master"].cert, names), identities)


def expected_name(cert: bytes, names: Sequence[str]) -> str:
    """Return the name of a master that its certificate is for. Raises `UsageError` when it is for none of `names`."""
    x509, _ = _library()
    found = _names_in(x509.load_pem_x509_certificate(cert))
    for name in names:
        if name in found or f"*.{name.partition('.')[2]}" in found:
            return name
    raise UsageError(
        f"the certificate of the master is for {', '.join(sorted(found)) or 'no name'}, and not for the master of this job",
        hint=f"It must be for one of {', '.join(names)}.",
    )


def write_identity(certificates: Certificates, who: str, folder: Path) -> tuple[Path, Path, Path]:
    """Write what one of `WHO` needs into `folder`, for its owner alone; return the files of authority, certificate and key."""
    identity = certificates.identities[who]
    files = {"ca.crt": certificates.ca, f"{who}.crt": identity.cert, f"{who}.key": identity.key}
    for name, content in files.items():
        path = folder / name
        path.touch(mode=0o600)
        path.write_bytes(content)
    ca, cert, key = (folder / name for name in files)
    return ca, cert, key


# -- inside -----------------------------------------------------------------------------------------------------------------------------
def _library() -> tuple[Any, Any]:
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise UsageError("cryptography is not installed", hint="pip install cryptography") from error
    return x509, ec


def _of_authority(x509: Any) -> list[tuple[Any, bool]]:
    allowed = {"key_cert_sign": True, "crl_sign": True}
    others = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only")
    usage = x509.KeyUsage(**allowed, **dict.fromkeys(others, False), decipher_only=False)
    return [(x509.BasicConstraints(ca=True, path_length=0), True), (usage, True)]


def _signed(
    subject: x509.Name,
    key: EllipticCurvePrivateKey,
    issuer: x509.Name,
    issuer_key: EllipticCurvePrivateKey,
    begins: datetime,
    extensions: list[tuple[Any, bool]],
) -> x509.Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256

    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + _BACKDATED + _LASTING)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(issuer_key, SHA256())


def _pem(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)


def _identity(certificate: x509.Certificate, key: EllipticCurvePrivateKey) -> Identity:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return Identity(_pem(certificate), key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def _names_in(certificate: x509.Certificate) -> set[str]:
    from cryptography import x509

    try:
        return set(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName))
    except x509.ExtensionNotFound:
        return set()
