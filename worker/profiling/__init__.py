"""Profiling: each stage of a job alone, on the first rows of its input, and what that promises for the whole."""
