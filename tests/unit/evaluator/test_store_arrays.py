"""Arrays to bytes and back."""

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from xai_sidecar.errors import StoreError
from xai_sidecar.evaluator.store.arrays import pack, unpack


@given(hnp.arrays(np.uint32, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0)), st.booleans())
def test_every_bit_pattern_comes_back(patterns, turned):
    array = np.asarray(patterns.view(np.float32).T if turned else patterns.view(np.float32))
    back = unpack(pack(array), *array.shape)
    assert (back.dtype, back.shape, back.tobytes()) == (np.float32, array.shape, array.tobytes())
    assert back.flags.writeable
    assert back.flags.c_contiguous


def test_the_format():
    """Worked out on paper: 1.0 is 3f800000, 2.5 is 40200000; the lowest bytes come first."""
    blob = pack(np.array([1.0, 2.5], np.float32))
    assert zlib.decompress(blob) == bytes.fromhex("0000 0000 8020 3f40")
    by_others = zlib.compress(bytes.fromhex("0000 0000 8020 3f40"), 9)
    assert unpack(by_others, 2, 1).tolist() == [[1.0], [2.5]]


def test_big_endian_arrays_come_back_by_value():
    array = np.array([1.0, -2.5], ">f4")
    assert unpack(pack(array), 2).tolist() == [1.0, -2.5]


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32])
def test_other_types_would_be_changed(dtype):
    with pytest.raises(ValueError, match="not float32"):
        pack(np.zeros(3, dtype))


def test_damage_is_told():
    whole = pack(np.arange(100, dtype=np.float32))
    torn = bytes([*whole[:40], whole[40] ^ 255, *whole[41:]])
    for blob, shape in [(whole, (99,)), (whole, (101,)), (whole[:-20], (100,)), (b"", (1,)), (torn, (100,))]:
        with pytest.raises(StoreError, match="damaged"):
            unpack(blob, *shape)
