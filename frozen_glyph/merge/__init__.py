"""Arrow C: expert checkpoints -> one merged checkpoint, without training."""
