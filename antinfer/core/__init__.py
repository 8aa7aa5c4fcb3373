"""The pure heart: row ranges, leases, sessions, budgets, dispatch, and `engine.step(event) -> commands`.

Nothing here reads a clock, a file, a socket, the environment or a random number, starts a thread or writes a log: time and ids come in with
events, effects go out as commands. CI enforces it (import contracts), and the simulator in `antinfer.testing.sim` depends on it.
"""
