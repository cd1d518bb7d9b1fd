"""Benchmarks: how close a run comes to its limits, and how it compares with other queues."""
