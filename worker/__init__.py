"""One agent per node: holds leases, and runs the stage host and the predictor processes that do the work."""

if __name__ != "antinfer.worker":
    raise ImportError(f"import antinfer.worker, not {__name__}: a second copy of its modules would break isinstance checks")
