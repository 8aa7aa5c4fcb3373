"""The job file: its schema, loading, fingerprints, and the references to user code that it names."""
