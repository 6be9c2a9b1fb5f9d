"""A page in the browser for people who would rather look: glyphs, who speaks, growth, samples (extra ``app``)."""
