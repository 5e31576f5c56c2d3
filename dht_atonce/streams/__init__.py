"""Streams of bytes between two peers, and files over them (floor 5)."""
