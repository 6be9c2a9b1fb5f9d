"""lm-eval's tasks, the data they read, and what running one on a model gives."""
