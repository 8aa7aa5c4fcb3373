"""``python -m antinfer.worker.predictors FD PARENT BOX``: a predictor process, started by a stage host."""

from __future__ import annotations

import sys

from antinfer.launchers.parent import die_with_parent
from antinfer.worker import blackbox

if __name__ == "__main__":
    die_with_parent(int(sys.argv[2]))
    blackbox.keep(int(sys.argv[3]))

    from antinfer.worker.predictors.serve import serve

    sys.exit(serve(int(sys.argv[1]), int(sys.argv[3])))
