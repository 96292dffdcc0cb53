"""Benchmarks: what explanations cost, as ratios measured in one run. `python -m bench`, or `make bench`."""
