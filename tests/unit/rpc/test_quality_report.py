"""What a history leaves out is said of each of its windows."""

import math

import pytest

from xai_client.quality_response import quality_history
from xai_sidecar.evaluator.reading.history import History, Traffic
from xai_sidecar.rpc.quality_report import history_message


def history(truncated):
    nan = math.nan
    none = Traffic(0, 0, nan, (), 0, nan, nan, (), 0, 0, nan)
    return History(1000.0, 60.0, {}, {}, (), none, 0, truncated)


@pytest.mark.parametrize("now", [False, True])
@pytest.mark.parametrize("before", [False, True, None])
def test_each_window_says_whether_there_was_more(now, before):
    message = history_message(history(now), 3, None if before is None else history(before), ["cat"])
    read = quality_history(message.history)
    assert (read.truncated, read.reference_truncated) == (now, bool(before))
    assert (read.reference is None) == (before is None)
