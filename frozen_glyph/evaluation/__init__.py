"""Benchmarks, statistics and the report that shows both."""
