"""Drift of explanations: whether maps that are made anyway are still like those of a while ago; it takes no passes."""
