"""The class that maps are of: what the URL says, as far as there is such a class."""

from types import SimpleNamespace

import pytest

from xai_console.class_choice import chosen_class

INFO = SimpleNamespace(class_count=10)
SUMMARY = SimpleNamespace(classes=(SimpleNamespace(class_id=4), SimpleNamespace(class_id=2)))


@pytest.mark.parametrize(("said", "chosen"), [("7", 7), ("0", 0), ("10", 4), ("-1", 4), ("1.5", 4), ("", 4), ("²", 4)])
def test_the_class_of_the_url_else_the_most_probable_one(said, chosen):
    assert chosen_class(SimpleNamespace(state={"class": said}), INFO, SUMMARY, "class") == chosen


def test_without_a_prediction_it_is_the_first():
    assert chosen_class(SimpleNamespace(state={}), INFO, SimpleNamespace(classes=()), "class") == 0
