"""Arrow B: stage k checkpoint -> grown model -> trained stage k + 1."""
