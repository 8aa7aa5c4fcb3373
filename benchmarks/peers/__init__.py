"""The others in the race, each as a script: ``python -m benchmarks.peers.<name> IN OUT``. The last line each prints is its own seconds."""
