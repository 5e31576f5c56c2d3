"""The rivals, one to a file. Each has `make()`, which raises `Skipped` where it cannot be."""
