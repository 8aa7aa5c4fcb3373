"""The others in the race, and the ceilings, each a command: the last line it prints is a JSON object."""
