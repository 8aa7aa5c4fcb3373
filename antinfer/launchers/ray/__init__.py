"""Workers as Ray actors: one actor holds the place and the resources of one worker, whose ordinary agent is a child process of it."""
