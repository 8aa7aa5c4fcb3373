"""How many workers a job has, decided by `antinfer.core.scaling`: what it looks at, and how it is carried out."""
