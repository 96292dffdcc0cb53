"""Layers whose output lies on the picture: which they are, and where each position is. Of any kind of net."""
