"""What people and machines are told: log lines, live progress."""
