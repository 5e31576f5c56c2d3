"""Rooms: what members of a topic say to all of each other."""
