"""Is a layer learning, or a bias in disguise? Gradients and mixing of every block, and the layer that must fail."""
