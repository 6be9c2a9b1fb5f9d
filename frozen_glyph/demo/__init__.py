"""What `frozen-glyph demo` needs and nothing else does: its synthetic corpus and questions."""
