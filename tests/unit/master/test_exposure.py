"""Where a master listens without TLS and token, and where it does not."""

from __future__ import annotations

import pytest

from antinfer.errors import UsageError
from antinfer.master.exposure import check_exposure
from antinfer.master.service.auth import Tokens
from antinfer.rpc.channel import Tls


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.3.2.1:7077", "[::1]:1", "localhost:1", "unix:///tmp/m.sock"])
def test_this_machine_may_be_listened_to(address: str) -> None:
    check_exposure(address, tls=None, token="")


@pytest.mark.parametrize("address", ["0.0.0.0:7077", "[::]:7077", "10.1.2.3:7077", "master:7077", "[fe80::1]:1"])
def test_a_network_takes_tls_and_a_token(address: str) -> None:
    check_exposure(address, tls=Tls(), token="t")
    for tls, token, missing in ((None, "", "TLS and a token"), (None, "t", "TLS"), (Tls(), "", "a token")):
        with pytest.raises(UsageError, match=rf"would listen there without {missing}\n") as caught:
            check_exposure(address, tls=tls, token=token)
        assert "--insecure" in caught.value.hint


def test_people_may_have_a_token_of_their_own() -> None:
    both, one = Tokens("w", "a"), Tokens("w")
    assert (both.of("/antinfer.rpc.v1.Work/GetJob"), both.of("/antinfer.rpc.v1.Admin/Cancel")) == ("w", "a")
    assert one.of("/antinfer.rpc.v1.Admin/Cancel") == "w"
    assert repr(Tokens("secret", "secret")) == "Tokens()"
