"""Train a completed job again, and say whether the same came out."""
