"""The pipeline of a worker, pure: pieces of work and their identity, batches cut across tasks, results put back, groups closed."""
