"""``python -m antinfer.worker.predictors FD PARENT``: a predictor process, started by a stage host."""

from __future__ import annotations

import sys

from antinfer.launchers.parent import die_with_parent

if __name__ == "__main__":
    die_with_parent(int(sys.argv[2]))

    from antinfer.worker.predictors.serve import serve

    sys.exit(serve(int(sys.argv[1])))
