"""The seed server: it lets newcomers find their first contacts, and is no longer needed."""
