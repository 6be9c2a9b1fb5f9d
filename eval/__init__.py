"""What the project measures: studies by question, the papers' claims beside them, benchmarks, and their results."""
