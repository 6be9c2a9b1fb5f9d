"""What growth and head tuning share: documents -> packed tokens -> windows, and a phase of resumable training."""
