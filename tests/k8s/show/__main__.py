"""``python -m tests.k8s.show``: a job on the double of a cluster, with `kubectl get pods -w` beside it, while nodes and pods go.

Prints what everybody says, as it comes. The exit status is 1 when anything is not as it must be, 2 where there is no `kubectl`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.k8s.show.kubectl import PROGRAM
from tests.k8s.show.scenes import show
from tests.k8s.show.transcript import Transcript


def main() -> int:
    if PROGRAM is None:
        print("kubectl is not on this machine", file=sys.stderr)
        return 2
    transcript = Transcript()
    with tempfile.TemporaryDirectory(prefix="show-") as folder:
        show(Path(folder), transcript)
    return transcript.close()


if __name__ == "__main__":
    sys.exit(main())
