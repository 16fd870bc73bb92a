"""What a run consists of: processes that read, threads that transform, or a cluster of Ray."""
