"""Benchmarks and the report that shows them."""
