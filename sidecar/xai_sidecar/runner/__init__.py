"""Explains and measures a whole data set: the same engine, the same measurements and the same store as live traffic."""
