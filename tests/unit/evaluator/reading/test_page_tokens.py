"""Pages go on where the last one ended, whatever comes or goes meanwhile."""

import pytest

from xai_sidecar.evaluator.reading import Order, Reader, SampleFilter
from xai_sidecar.evaluator.reading.orders import By
from xai_sidecar.evaluator.records import Frame, SampleKey, SampleRecord


def record(number, time, probability=0.5):
    return SampleRecord(SampleKey(f"r{number}", 0), time, "m", Frame(8, 9), 3, probability, (3,))


@pytest.mark.parametrize("order", [Order(), Order(descending=False), Order(By.PROBABILITY), Order(By.OOD)])
def test_what_comes_meanwhile_is_left_out(store, order):
    """At each page new samples come, before and behind all others by time and by probability."""
    for number in range(12):
        store.add_sample(record(number, 100.0 + number % 5, number % 4 / 4))
    reader = Reader(store.database)
    first = [view.record.key for view in reader.page(SampleFilter(), order, 200).samples]
    found, token, number = [], "", 100
    for _ in range(4):
        page = reader.page(SampleFilter(), order, 3, token)
        found += [view.record.key for view in page.samples]
        token = page.next_token
        for time, probability in ((1.0, 0.0), (1e6, 1.0), (102.0, 0.5)):
            number += 1
            store.add_sample(record(number, time, probability))
    assert found == first
    assert token == ""
    assert len(reader.page(SampleFilter(), order, 200).samples) == 24


def test_what_goes_meanwhile_leaves_the_rest_in_place(open_store, url):
    store = open_store(url, retention_seconds=50.0)
    for number in range(9):
        store.add_sample(record(number, 100.0 + number))
    reader = Reader(store.database)
    page = reader.page(SampleFilter(), Order(), 3)
    assert len(store.prune(153.0)) == 3  # the oldest, and so the last ones of the list
    rest = reader.page(SampleFilter(), Order(), 200, page.next_token)
    assert [view.record.key.request_id for view in rest.samples] == ["r5", "r4", "r3"]
    assert rest.next_token == ""


def test_a_page_that_holds_all_has_no_next_one(store):
    reader = Reader(store.database)
    assert reader.page(SampleFilter(), Order(), 5, with_total=True) == reader.page(
        SampleFilter(), Order(), 5, with_total=True
    )
    assert reader.page(SampleFilter(), Order(), 5, with_total=True).total == 0
    for number in range(5):
        store.add_sample(record(number, 1.0))
    page = reader.page(SampleFilter(), Order(), 5, with_total=True)
    assert (len(page.samples), page.next_token, page.total) == (5, "", 5)
