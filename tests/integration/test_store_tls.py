"""The store over TLS, with a password and a user of its own: a real handshake in front of a real Valkey, which is not built with TLS."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from antinfer.errors import StoreError
from antinfer.master.store.base import Applied, Batch
from antinfer.master.store.redis import RedisStore
from antinfer.testing.chaos.servers import valkey
from tests.integration.tls import tls_in_front_of


def _certificate(folder: Path) -> Path:
    """Write a self-signed certificate for the loopback address, and its key, into one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    pem = certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain
    )
    path = folder / "server.pem"
    path.write_bytes(pem)
    return path


def test_a_store_behind_tls_with_a_user_and_a_password(tmp_path: Path) -> None:
    certificate = _certificate(tmp_path)

    async def use(port: int) -> Applied:
        async with tls_in_front_of(port, certificate) as outer:
            store = RedisStore(f"rediss://clerk:secret@127.0.0.1:{outer}/0?ssl_ca_certs={certificate}", "job")
            await store.open()
            try:
                assert "secret" not in store.name
                await store.claim(1, "me", unbroken=True)
                return await store.persist(Batch(1, 0, "token", {"meta": "{}"}))
            finally:
                await store.close()

    with valkey(tmp_path / "store", user="clerk;on;>secret;~antinfer:*;&*;+@all") as server:
        assert asyncio.run(use(server.port)) is Applied.NOW


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    certificate = _certificate(tmp_path)

    async def use(port: int) -> None:
        async with tls_in_front_of(port, certificate) as outer:
            store = RedisStore(f"rediss://127.0.0.1:{outer}/0", "job", start_patience_s=0.2)
            try:
                await store.open()
            finally:
                await store.close()

    with valkey(tmp_path / "store") as server, pytest.raises(StoreError, match="TLS"):
        asyncio.run(use(server.port))
