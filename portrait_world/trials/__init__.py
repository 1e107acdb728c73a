"""The benchmark: every method, the same people, the same prompts; and the trials beside it."""
