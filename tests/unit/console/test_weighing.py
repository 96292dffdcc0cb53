"""Composite scores by weights of the viewer's own: what was not measured is never 0."""

import pytest

from xai_console.weighing import composite, missing


def test_the_mean_goes_by_weight():
    assert composite({"a": 0.5, "b": 1.0}, {"a": 3.0, "b": 1.0}) == pytest.approx(0.625)


def test_what_counts_for_nothing_may_be_missing():
    assert composite({"a": 0.5}, {"a": 1.0, "b": 0.0}) == 0.5


def test_what_counts_and_is_missing_leaves_no_score_rather_than_a_low_one():
    assert composite({"a": 0.9}, {"a": 1.0, "b": 0.1}) is None
    assert missing({"a": 0.9}, {"a": 1.0, "b": 0.1, "c": 0.0}) == ["b"]


def test_without_any_weight_there_is_none():
    assert composite({"a": 0.9}, {"a": 0.0}) is None
    assert composite({}, {}) is None
