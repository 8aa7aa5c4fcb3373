"""What the master serves: the stream of work, and what people ask."""
