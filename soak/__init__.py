"""Long runs that try to make delivery break its word: `python -m soak --help`."""
