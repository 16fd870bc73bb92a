"""The stages of a run: processes that read, threads that transform, or a Ray cluster."""
