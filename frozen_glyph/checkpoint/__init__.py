"""Checkpoint folders: where growth, composition and evaluation meet."""
