"""Benchmarks beside peers: ``make bench``."""
