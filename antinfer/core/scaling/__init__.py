"""How many workers a job has, of which kind, and what becomes of those that end (DESIGN sections 7 and 8).

Pure: `planning.plan` is given what is wanted, what is seen and what is remembered, and returns what to do. Whoever calls it does that with
a launcher, in any order, and calls it again with what is seen then. Nothing depends on having seen every change.
"""
