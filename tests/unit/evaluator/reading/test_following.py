"""A store that another process writes is followed: what comes, and what becomes of it."""

from xai_sidecar.evaluator.reading.following import Follower
from xai_sidecar.evaluator.records import SampleState


def test_samples_are_followed_from_their_coming_to_their_end(store, make_sample):
    records = [make_sample() for _ in range(4)]
    for record in records[:2]:
        store.add_sample(record)
    store.set_state(records[0].key, SampleState.SCORED)
    follower = Follower(store.database)
    assert [(each.key, each.new, each.measured) for each in follower.poll()] == [
        (records[0].key, True, True),
        (records[1].key, True, False),
    ]
    assert follower.poll() == []
    assert len(follower.open) == 1
    store.add_sample(records[2])
    store.set_state(records[2].key, SampleState.FAILED)  # between two looks
    store.add_sample(records[3])
    store.set_state(records[1].key, SampleState.SCORED)
    assert {(each.key, each.new, each.measured) for each in follower.poll()} == {
        (records[1].key, False, True),
        (records[2].key, True, True),
        (records[3].key, True, False),
    }
    store.set_state(records[3].key, SampleState.NO_POSITIVE)
    (last,) = follower.poll()
    assert (last.key, last.time, last.measured) == (records[3].key, records[3].time, True)
    assert follower.poll() == []
    assert not follower.open
