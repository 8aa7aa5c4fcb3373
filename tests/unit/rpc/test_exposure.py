"""Where a master listens without mutual TLS and token, and whom a token is told in plain text."""

from __future__ import annotations

from pathlib import Path

import pytest

from antinfer.errors import UsageError
from antinfer.master.service.auth import Tokens
from antinfer.rpc.channel import Tls
from antinfer.rpc.client import AdminClient, WorkClient
from antinfer.rpc.exposure import check_listening, check_telling
from antinfer.worker.app import main as work

LOCAL = ["127.0.0.1:0", "127.3.2.1:7077", "[::1]:1", "localhost:1", "unix:///tmp/m.sock"]
REMOTE = ["0.0.0.0:7077", "[::]:7077", "10.1.2.3:7077", "master:7077", "[fe80::1]:1"]
AUTHORITY = "an authority for the certificates of its callers"


@pytest.mark.parametrize("address", LOCAL)
def test_this_machine_may_be_listened_to_and_told(address: str) -> None:
    check_listening(address, tls=None, token="")
    check_telling(address, tls=None, token="t")
    AdminClient(address, token="t").close()


@pytest.mark.parametrize("address", REMOTE)
def test_a_network_takes_mutual_tls_and_a_token(address: str) -> None:
    check_listening(address, tls=Tls(ca=b"authority"), token="t")
    for tls, token, missing in (
        (None, "", "TLS and a token"),
        (None, "t", "TLS"),
        (Tls(), "", f"{AUTHORITY} and a token"),
        (Tls(), "t", AUTHORITY),
        (Tls(ca=b"authority"), "", "a token"),
    ):
        with pytest.raises(UsageError, match=rf"would listen there without {missing}\n") as caught:
            check_listening(address, tls=tls, token=token)
        assert "--insecure" in caught.value.hint


@pytest.mark.parametrize("address", REMOTE)
def test_no_token_travels_a_network_in_plain_text(address: str) -> None:
    check_telling(address, tls=Tls(), token="t")
    check_telling(address, tls=None, token="")
    for client in (AdminClient, WorkClient):
        with pytest.raises(UsageError, match="the token would travel there in plain text") as caught:
            client(address, token="t")
        assert "--insecure" in caught.value.hint
        client(address, token="t", insecure=True).close()


def test_a_worker_keeps_its_token_to_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "token").write_text("sesame")
    given = ["--master", "192.0.2.1:7077", "--token-file", str(tmp_path / "token"), "--wait", "0"]
    assert work(given) == 2
    assert "would travel there in plain text" in capsys.readouterr().err
    assert work([*given, "--insecure"]) == 1, "it tries, and nobody is there"


def test_people_may_have_a_token_of_their_own() -> None:
    both, one = Tokens("w", "a"), Tokens("w")
    assert (both.of("/antinfer.rpc.v1.Work/GetJob"), both.of("/antinfer.rpc.v1.Admin/Cancel")) == ("w", "a")
    assert one.of("/antinfer.rpc.v1.Admin/Cancel") == "w"
    assert repr(Tokens("secret", "secret")) == "Tokens()"
