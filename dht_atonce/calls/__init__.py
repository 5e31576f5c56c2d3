"""Requests and replies over the delivery of messages."""
