"""Numbers on a machine with GPUs: ``python -m benchmarks.gpu SUITE --out FILE``."""
