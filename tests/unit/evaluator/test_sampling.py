"""Which requests are sampled, and who waits."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xai_sidecar.evaluator.records import Frame, Sample, SampleKey
from xai_sidecar.evaluator.sampling import Unscored, Waiting, chosen

IDS = [f"req-{number}" for number in range(10_000)]


def sample(name, time, byte_count=100):
    """A sample that takes so many bytes, at least 4."""
    image = np.zeros((1, 1, byte_count // 4 - 1), np.float32)
    made = Sample(
        SampleKey(name, 0), time, "1", Frame(1, image.shape[2]), image, image[0, 0, :0], np.ones(1, np.float32), (0,)
    )
    assert made.byte_count == byte_count
    return made


def names(samples):
    return [each.key.request_id for each in samples]


@given(st.text(st.characters(exclude_categories=["Cs"])), st.floats(0, 1), st.floats(0, 1))
def test_what_a_rate_chooses_every_higher_rate_chooses(request_id, one, other):
    low, high = sorted((one, other))
    assert chosen(request_id, low) <= chosen(request_id, high)
    assert chosen(request_id, 1.0)
    assert not chosen(request_id, 0.0)


def test_numbered_requests_are_chosen_evenly():
    # Tenths of [0, 1): chi-square with nine degrees of freedom is above 27.9 once in a thousand.
    counts = np.diff([sum(chosen(each, rate / 10) for each in IDS) for rate in range(11)])
    assert counts.sum() == len(IDS)
    assert ((counts - 1000) ** 2 / 1000).sum() < 27.9


def test_so_are_those_of_a_low_rate_everywhere():
    # Of each thousand, 100 with a standard deviation of 9.5.
    taken = np.array([chosen(each, 0.1) for each in IDS]).reshape(10, 1000).sum(axis=1)
    assert (np.abs(taken - 100) < 38).all()


def test_it_has_nothing_to_do_with_the_seed():
    # Four corners of 2500 each; three degrees of freedom.
    corners = np.zeros((2, 2))
    for each in IDS:
        corners[int(chosen(each, 0.5)), SampleKey(each, 0).seed >> 31] += 1
    assert ((corners - 2500) ** 2 / 2500).sum() < 16.3


def test_it_is_the_same_in_every_run():
    assert [each for each in IDS[:30] if chosen(each, 0.2)] == [
        "req-0",
        "req-9",
        "req-10",
        "req-12",
        "req-25",
        "req-29",
    ]


def test_who_does_not_know_the_salt_cannot_tell():
    # Of 10,000 with salts of their own and a rate of a half, two choose alike half of the time.
    one, other = ([chosen(each, 0.5, salt) for each in IDS] for salt in (b"1" * 16, b"2" * 16))
    alike = sum(a == b for a, b in zip(one, other, strict=True))
    assert abs(alike - 5000) < 200
    assert one == [chosen(each, 0.5, b"1" * 16) for each in IDS]
    assert abs(sum(one) - 5000) < 200


def test_the_oldest_comes_first_and_equals_as_they_came():
    waiting = Waiting(1000, 60)
    for name, time in [("b", 20), ("a", 10), ("c", 20), ("d", 15)]:
        assert waiting.add(sample(name, time), now=30) == []
    assert (waiting.count, waiting.byte_count) == (4, 400)
    assert names(waiting.take(30) for _ in range(4)) == ["a", "d", "b", "c"]
    assert waiting.take(30) is None
    assert (waiting.count, waiting.byte_count) == (0, 0)


def test_a_newcomer_goes_if_there_is_no_room():
    waiting = Waiting(300, 60)
    assert waiting.add(sample("a", 1, 200), 5) == []
    assert names(waiting.add(sample("b", 2, 104), 5)) == ["b"]
    assert waiting.add(sample("c", 3, 100), 5) == []
    assert names(waiting.add(sample("d", 0, 4), 5)) == ["d"]
    assert waiting.byte_count == 300
    assert names([waiting.take(5), waiting.take(5)]) == ["a", "c"]


def test_what_could_never_fit_goes_and_takes_nothing_with_it():
    waiting = Waiting(300, 60)
    waiting.add(sample("old", 0, 100), 0)
    assert names(waiting.add(sample("large", 100, 304), 100)) == ["large"]
    assert waiting.count == 1
    assert waiting.add(sample("whole", 100, 200), 100) == []
    nothing = Waiting(0, 60)
    assert names(nothing.add(sample("a", 0, 4), 0)) == ["a"]


def test_the_too_old_make_room():
    waiting = Waiting(300, 60)
    for name, time in [("a", 0), ("b", 10), ("c", 20)]:
        waiting.add(sample(name, time), 20)
    assert names(waiting.add(sample("x", 60), 60)) == ["x"]
    assert names(waiting.add(sample("d", 80), 80.5)) == ["a", "b", "c"]
    assert names(waiting.add(sample("large", 81, 204), 81)) == ["large"]
    assert names([waiting.take(81)]) == ["d"]


def test_the_too_old_stay_while_there_is_room_but_are_not_handed_out():
    waiting = Waiting(300, 60)
    waiting.add(sample("a", 0), 0)
    assert waiting.add(sample("b", 100), 100) == []
    assert names([waiting.take(100)]) == ["b"]
    assert waiting.take(100) is None
    assert waiting.count == 1
    assert names(waiting.expire(100)) == ["a"]
    assert (waiting.count, waiting.byte_count) == (0, 0)


def test_too_old_is_more_than_the_age():
    waiting = Waiting(300, 60)
    waiting.add(sample("a", 10), 10)
    waiting.add(sample("b", 11), 11)
    assert waiting.expire(70) == []
    assert names(waiting.expire(70.5)) == ["a"]
    assert waiting.expire(70.5) == []
    assert names([waiting.take(71)]) == ["b"]


@given(
    st.lists(st.tuples(st.sampled_from(["add", "take", "expire"]), st.integers(0, 30), st.integers(1, 30)), max_size=60)
)
def test_nothing_gets_lost_whatever_comes(steps):
    waiting, inside = Waiting(200, 20), []
    for now, (step, time, words) in enumerate(steps, 1):
        if step == "add":
            newcomer = sample(str(now), min(time, now), 4 * words)
            gone = waiting.add(newcomer, now)
            inside.append(newcomer)
            assert all(each is newcomer or each.time < now - 20 for each in gone)
            no_room = sum(each.byte_count for each in inside if each is newcomer or each.time >= now - 20) > 200
            assert newcomer not in gone or no_room
        elif step == "take":
            taken = waiting.take(now)
            young = [each for each in inside if each.time >= now - 20]
            gone = young and [min(young, key=lambda each: each.time)]
            assert [taken] == (gone or [None])
        else:
            gone = waiting.expire(now)
            assert sorted(names(gone)) == sorted(names(each for each in inside if each.time < now - 20))
        inside = [each for each in inside if each not in gone]
        assert waiting.count == len(inside)
        assert waiting.byte_count == sum(each.byte_count for each in inside) <= 200


def test_threads_may_share_it():
    waiting = Waiting(5_000, 1e9)
    ends, lock = [], threading.Lock()

    def work(worker):
        for number in range(200):
            gone = [*waiting.add(sample(f"{worker}-{number}", number), 0)]
            if number % 2:
                gone.append(waiting.take(0))
            with lock:
                ends.extend(each for each in gone if each is not None)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ends.extend(iter(lambda: waiting.take(0), None))
    assert sorted(names(ends)) == sorted(f"{worker}-{number}" for worker in range(4) for number in range(200))
    assert (waiting.count, waiting.byte_count) == (0, 0)


@pytest.mark.parametrize("size", [100, 200])
def test_the_budget_may_be_used_up_to_the_last_byte(size):
    waiting = Waiting(200, 60)
    assert waiting.add(sample("a", 0, size), 0) == []
    assert waiting.byte_count == size


def test_what_has_ground_truth_comes_first():
    waiting = Waiting(1000, 60)
    for name, time in [("old", 10), ("a", 20), ("b", 30), ("c", 40)]:
        waiting.add(sample(name, time), now=40)
    for name in ("c", "gone", "b", "old"):
        waiting.prefer(SampleKey(name, 0))
    assert names(waiting.take(75) for _ in range(3)) == ["b", "c", "a"]  # the old one is too old by now
    assert names(waiting.expire(75)) == ["old"]
    waiting.add(sample("b", 50), now=75)  # another one, of which nothing is known
    waiting.add(sample("d", 45), now=75)
    assert names([waiting.take(75)]) == ["d"]


@pytest.mark.parametrize(
    ("byte_counts", "age", "share"),
    [((), 0, 1), ((500,), 30, 1), ((500, 100), 0, 0.8), ((900,), 0, 0.2), ((1000,), 0, 0), ((4,), 45, 0.5)],
)
def test_less_is_sampled_the_fuller_the_queue_and_the_older_what_waits(byte_counts, age, share):
    waiting = Waiting(1000, 60)
    for number, count in enumerate(byte_counts):
        waiting.add(sample(str(number), 100, count), 100)
    assert waiting.share(100 + age) == pytest.approx(share)


def test_what_is_not_scored_is_told_for_an_hour():
    unscored = Unscored()
    assert unscored.text(0) == ""
    for time, why in [(0, "expired"), (10, "dropped"), (20, "expired")]:
        unscored.add(time, why)
    assert "2 expired and 1 dropped before" in unscored.text(3600)
    assert "evaluator.sample_rate" in unscored.text(3600)
    assert "hour 1 expired before" in unscored.text(3615)
    assert unscored.text(3621) == ""
