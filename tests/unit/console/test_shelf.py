"""What browsers fetch: kept while there is room, under names that nobody can guess."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from xai_client import ImageError
from xai_console.shelf import Shelf


def png(width, height, **options):
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (10, 20, 30)).save(buffer, "PNG", **options)
    return buffer.getvalue()


def test_what_was_put_is_got_again():
    shelf = Shelf()
    name = shelf.put(b"content", "image/jpeg")
    assert (shelf.get(name).data, shelf.get(name).media_type) == (b"content", "image/jpeg")
    assert shelf.get("another") is None


def test_names_differ_from_one_console_to_the_next():
    assert Shelf().put(b"content", "image/jpeg") != Shelf().put(b"content", "image/jpeg")


def test_the_same_is_kept_once():
    shelf = Shelf(room=10)
    names = {shelf.put(b"12345678", "a") for _ in range(5)}
    assert len(names) == 1
    assert shelf.get(names.pop()) is not None


def test_what_was_not_looked_at_for_longest_goes_first():
    shelf = Shelf(room=10)
    first, second = shelf.put(b"1111", "a"), shelf.put(b"2222", "a")
    assert shelf.get(first) is not None
    third = shelf.put(b"3333", "a")
    assert [shelf.get(each) is not None for each in (first, second, third)] == [True, False, True]


def test_something_larger_than_the_room_is_kept_alone():
    shelf = Shelf(room=4)
    shelf.put(b"12", "a")
    assert shelf.get(shelf.put(b"0123456789", "a")) is not None


def test_values_travel_as_little_endian_floats_row_by_row():
    shelf = Shelf()
    values = np.arange(6, dtype=np.float64).reshape(2, 3).T  # not in the order of rows
    grid = shelf.grid(values)
    assert (grid.rows, grid.columns) == (3, 2)
    data = shelf.get(grid.url.removeprefix("/kept/")).data
    assert np.frombuffer(data, "<f4").tolist() == [0, 3, 1, 4, 2, 5]


def test_a_large_picture_is_shown_smaller_and_keeps_its_size_in_words():
    shelf = Shelf()
    kept = shelf.picture(png(4000, 1000))
    assert kept.size == (4000, 1000)
    with Image.open(io.BytesIO(shelf.get(kept.url.removeprefix("/kept/")).data)) as shown:
        assert shown.size == (1600, 400)


def test_what_is_no_picture_is_refused():
    with pytest.raises(ImageError):
        Shelf().picture(b"no picture")


def test_a_list_of_texts_is_kept_as_they_are():
    shelf = Shelf()
    url = shelf.listing(["goldfish", "小 <猫>"])
    kept = shelf.get(url.rpartition("/")[2])
    assert json.loads(kept.data) == ["goldfish", "小 <猫>"]
    assert shelf.listing(["goldfish", "小 <猫>"]) == url
