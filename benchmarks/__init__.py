"""The numbers that antinfer promises, measured against peers in the same run: ``python -m benchmarks``."""
