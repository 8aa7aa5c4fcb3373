"""The show, as somebody sees it who starts it: a whole job with `kubectl` beside it, while nodes and pods are taken away."""

from __future__ import annotations

import io
import re
import subprocess
import sys

import pytest

from antinfer.core.scaling import exits
from tests.integration.jobs import ROOT
from tests.k8s.show.kubectl import PROGRAM
from tests.k8s.show.scenes import MISSING
from tests.k8s.show.transcript import Transcript


def test_what_is_not_as_it_must_be_is_told_and_decides_the_exit_status() -> None:
    printed = io.StringIO()
    transcript = Transcript(printed)
    transcript.say("somebody", "first\nsecond")
    transcript.expect("the sky is blue", True)
    assert transcript.close() == 0
    transcript.expect("pigs fly", False)
    assert transcript.close() == 1
    said = [re.sub(r"^ *\d+\.\d  ", "", line) for line in printed.getvalue().splitlines() if line]
    assert said == [
        "somebody first",
        "somebody second",
        "must be  the sky is blue: yes",
        "== all is as it must be",
        "must be  pigs fly: NO",
        "== not as it must be: pigs fly",
    ]


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif(PROGRAM is None, reason="kubectl is not on this machine")
def test_nodes_and_pods_go_while_kubectl_looks_on() -> None:
    done = subprocess.run([sys.executable, "-m", "tests.k8s.show"], cwd=ROOT, capture_output=True, text=True, timeout=360, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    kubectl = _seen(done.stdout)
    for title, status in (
        (r"spot-\d loses power, and (.+) with it", "Terminating"),
        (r"spot-\d is drained, and (.+) with it", "Terminating"),
        (r"(.+) is deleted", "Terminating"),
        (r"the \d+ MiB of (.+) are used up", "OOMKilled"),
    ):
        lost = re.search(rf"^== {title}$", done.stdout, re.MULTILINE)
        assert lost, title
        new = re.search(rf"must be  (.+) in place of {lost[1]}, and the others stay: yes", done.stdout)
        assert new, lost[1]
        for name in lost[1].split(", "):
            assert kubectl[name].index("Running") < kubectl[name].index(status)
        for name in new[1].split(", "):
            assert kubectl[name][0] == "Pending" and "Running" in kubectl[name]
    (broken,) = [name for name in kubectl if name.startswith("broken-")]
    assert {"ErrImagePull", "ImagePullBackOff"} <= set(kubectl[broken]) and "Running" not in kubectl[broken]
    assert f"exit status {exits.TAKEN_AWAY}" in done.stdout
    assert re.search(r"antinfer \S+/out: complete and intact$", done.stdout, re.MULTILINE)
    assert re.search(rf"antinfer \S+ +failed: workers cannot start: .*{re.escape(MISSING)}$", done.stdout, re.MULTILINE)


def _seen(transcript: str) -> dict[str, list[str]]:
    """Return what `kubectl get pods -w` has shown: the statuses of each pod, in order."""
    found: dict[str, list[str]] = {}
    for name, status in re.findall(r"^ *[\d.]+ +kubectl  (\S+) +\d/\d +(\S+) +\d+ ", transcript, re.MULTILINE):
        found.setdefault(name, []).append(status)
    return found
