"""Scripts that run inside the store's server; each is one atomic step."""
