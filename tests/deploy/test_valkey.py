"""The Valkey that the chart can bring along: a real server takes its configuration, and a real handshake its certificate."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import AuthenticationError, Redis

from antinfer.errors import StoreError
from antinfer.master.store.redis import RedisStore
from antinfer.testing.chaos.servers import ValkeyServer, valkey
from tests.deploy.charts import Object, needs_helm, one, render, values
from tests.integration.tls import tls_in_front_of

pytestmark = needs_helm


@pytest.fixture(scope="module")
def rendered() -> list[Object]:
    return render(values(valkey={"enabled": True, "storageClassName": "fast"}))


@pytest.fixture(scope="module")
def secret(rendered: list[Object]) -> dict[str, str]:
    """What Valkey has of its own."""
    return dict(one(rendered, "Secret", "-valkey")["stringData"])


@pytest.fixture(scope="module")
def settings(secret: dict[str, str]) -> dict[str, str]:
    return dict(line.split(" ", 1) for line in secret["valkey.conf"].splitlines())


@pytest.fixture
def server(settings: dict[str, str], tmp_path: Path) -> Iterator[ValkeyServer]:
    """A server with that configuration, but for TLS, which the one that tests have is not built with."""
    own = {name: value.strip('"') for name, value in settings.items() if name not in ("port", "dir") and not name.startswith("tls-")}
    with valkey(tmp_path / "store", **own) as server:
        yield server


def store_url(rendered: list[Object]) -> str:
    (found,) = [each["stringData"]["store-url"] for each in rendered if "store-url" in each.get("stringData", {})]
    return str(found)


def test_it_keeps_what_it_says_it_has_written(rendered: list[Object], settings: dict[str, str]) -> None:
    assert (settings["appendonly"], settings["appendfsync"], settings["maxmemory-policy"]) == ("yes", "always", "noeviction")
    (claim,) = one(rendered, "StatefulSet")["spec"]["volumeClaimTemplates"]
    (container,) = one(rendered, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    assert {"name": claim["metadata"]["name"], "mountPath": settings["dir"]} in container["volumeMounts"]


def test_only_the_master_reaches_it_by_tls_and_with_a_password(
    rendered: list[Object], secret: dict[str, str], settings: dict[str, str]
) -> None:
    assert (settings["port"], settings["tls-port"]) == ("0", "6379"), "nobody is spoken to in plain text"
    assert settings["requirepass"] == secret["password"] and len(secret["password"]) > 30
    service = one(rendered, "Service", "-valkey")
    host = f"{service['metadata']['name']}.batch.svc"
    assert store_url(rendered) == f"rediss://:{secret['password']}@{host}:6379/0?ssl_ca_certs=/etc/antinfer/secret/ca.crt"
    pod = one(rendered, "StatefulSet")["spec"]["template"]
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    (volume,) = [each["secret"] for each in pod["spec"]["volumes"] if "secret" in each]
    assert {f"/etc/valkey/{each['path']}" for each in volume["items"]} >= {settings["tls-cert-file"], settings["tls-key-file"]}
    policy = one(rendered, "NetworkPolicy", "-valkey")["spec"]
    assert policy["egress"] == []
    (peer,) = policy["ingress"][0]["from"]
    assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "master"


def test_a_server_takes_its_configuration(secret: dict[str, str], server: ValkeyServer) -> None:
    with pytest.raises(AuthenticationError):
        Redis(port=server.port).ping()
    with Redis(port=server.port, password=secret["password"], decode_responses=True) as client:
        assert client.config_get("append*")["appendfsync"] == "always"
        assert client.config_get("save")["save"] == ""


def test_a_master_believes_its_certificate_under_its_name_alone(
    rendered: list[Object], secret: dict[str, str], server: ValkeyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own.pem"
    own.write_text(secret["server.crt"] + secret["server.key"])
    (tmp_path / "ca.crt").write_text(next(each["stringData"]["ca.crt"] for each in rendered if "ca.crt" in each.get("stringData", {})))
    url = store_url(rendered).replace("/etc/antinfer/secret", str(tmp_path))
    look_up = socket.getaddrinfo

    def nearby(host: Any, *arguments: Any, **more: Any) -> Any:
        """Names of the cluster lead to this machine."""
        return look_up("127.0.0.1" if str(host).endswith(".svc") else host, *arguments, **more)

    monkeypatch.setattr(socket, "getaddrinfo", nearby)

    async def use(host: str) -> None:
        async with tls_in_front_of(server.port, own) as port:
            store = RedisStore(url.replace(f"{service}.batch.svc:6379", f"{host}:{port}"), "job", start_patience_s=0.2)
            try:
                await store.open()
                await store.claim(1, "me", unbroken=True)
                claimed.append(host)
            finally:
                await store.close()

    service, claimed = one(rendered, "Service", "-valkey")["metadata"]["name"], list[str]()
    asyncio.run(use(f"{service}.batch.svc"))
    assert claimed
    with pytest.raises(StoreError, match="TLS"):
        asyncio.run(use(f"{service}.other.svc"))
