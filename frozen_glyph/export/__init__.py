"""A checkpoint in the forms that other programs read: an ordinary embedding, a StarCoder2, a GGUF file."""
