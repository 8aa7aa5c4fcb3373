"""What a worker finds out by itself while a job runs, pure: how many copies of a stage, whether in threads or processes, how many rows in a
batch, and which share of them goes raw."""
