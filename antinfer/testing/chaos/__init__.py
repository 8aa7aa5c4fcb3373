"""Chaos: a job under a plan of faults, and the proof that it lost nothing."""
