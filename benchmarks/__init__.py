"""Benchmarks: what is promised about speed, measured beside rivals. docs/performance.md has the figures."""
