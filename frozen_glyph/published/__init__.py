"""Published checkpoints as ours; see ``importing.py``."""
