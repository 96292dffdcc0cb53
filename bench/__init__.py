"""Benchmarks: what explanations cost, as ratios measured in one run. `python -m bench`, or `make bench`."""

from xai_sidecar.command.environment import prepare_environment, switch_often

prepare_environment()  # as the server does
switch_often()
