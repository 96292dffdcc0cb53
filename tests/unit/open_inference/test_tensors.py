"""Tensors of the Open Inference Protocol: each data type, as bytes and one by one."""

import struct

import numpy as np
import pytest

from xai_sidecar.errors import TensorError
from xai_sidecar.open_inference.messages import InputTensor, OutputTensor
from xai_sidecar.open_inference.tensors import DATATYPES, DTYPES, check_datatype, raw_bytes, read_array, read_elements

# Worked out by hand: little-endian, two's complement, IEEE 754.
RAW = {
    "BOOL": ([True, False], "0100"),
    "UINT8": ([1, 255], "01ff"),
    "UINT16": ([1, 65535], "0100ffff"),
    "UINT32": ([1, 2**32 - 1], "01000000ffffffff"),
    "UINT64": ([1, 2**64 - 1], "0100000000000000ffffffffffffffff"),
    "INT8": ([1, -2], "01fe"),
    "INT16": ([1, -2], "0100feff"),
    "INT32": ([1, -2], "01000000feffffff"),
    "INT64": ([1, -2], "0100000000000000feffffffffffffff"),
    "FP16": ([1.0, -2.0], "003c00c0"),
    "FP32": ([1.0, -2.0], "0000803f000000c0"),
    "FP64": ([1.0, -2.0], "000000000000f03f00000000000000c0"),
}


def test_every_data_type_is_here():
    assert set(RAW) == set(DTYPES) == set(DATATYPES) - {"BF16", "BYTES"}


@pytest.mark.parametrize("datatype", RAW)
def test_numbers_as_bytes_and_one_by_one(datatype):
    values, raw = RAW[datatype][0], bytes.fromhex(RAW[datatype][1])
    for tensor in (
        InputTensor("x", datatype, (1, 2), raw),
        InputTensor("x", datatype, (1, 2), memoryview(raw)),
        InputTensor("x", datatype, (1, 2), values=values),
        InputTensor("x", datatype, (1, 2), values=[values]),
    ):
        array = read_array(tensor)
        assert (array.dtype, array.shape) == (DTYPES[datatype], (1, 2))
        assert array[0].tolist() == values
    assert raw_bytes(OutputTensor("x", datatype, (2,), np.array(values, DTYPES[datatype]))) == raw


def test_elements_of_bytes():
    raw = struct.pack("<I", 3) + b"abc" + struct.pack("<I", 0)
    assert read_elements(InputTensor("x", "BYTES", (2,), raw)) == [b"abc", b""]
    assert read_elements(InputTensor("x", "BYTES", (2, 1), memoryview(raw))) == [b"abc", b""]
    assert read_elements(InputTensor("x", "BYTES", (2,), values=[b"abc", b""])) == [b"abc", b""]
    assert raw_bytes(OutputTensor("x", "BYTES", (2,), [b"abc", b""])) == raw


@pytest.mark.parametrize(
    ("datatype", "shape", "raw", "says"),
    [
        ("FP32", (2,), bytes(7), r"FP32 of shape \[2\] takes 8 bytes, but there are 7\. Send all of it"),
        ("FP32", (2, 0), b"", "has a size below 1"),
        ("FP32", (2, -1), b"", "has a size below 1"),
        ("UINT8", (1,) * 9, b"1", "9 axes"),
        ("BYTES", (1,), b"", r"says 1 elements, but there are 0\."),
        ("BYTES", (1,), b"\x01\0\0", "Element 0 ends within its length"),
        ("BYTES", (1,), b"\x09\0\0\0abc", r"Element 0 should have 9 bytes by the four before it, but 3 follow"),
        ("BYTES", (1,), b"\xff\xff\xff\xff", "4,294,967,295 bytes"),
        ("BYTES", (1,), bytes(8), "says 1 elements, but there are more than that"),
    ],
)
def test_bytes_that_do_not_fit(datatype, shape, raw, says):
    read = read_elements if datatype == "BYTES" else read_array
    with pytest.raises(TensorError, match=says):
        read(InputTensor("x", datatype, shape, raw))


@pytest.mark.parametrize(
    ("datatype", "shape", "values", "says"),
    [
        ("UINT8", (2,), [0, 256], "UINT8 cannot hold all of its elements, 0 to 256"),
        ("UINT8", (2,), [-1, 0], "UINT8 cannot hold"),
        ("UINT8", (1,), [0.5], "not whole numbers"),
        ("UINT8", (1,), [True], "not whole numbers"),
        ("UINT8", (1,), ["1"], "not whole numbers"),
        ("FP32", (1,), ["1"], "not numbers, as FP32 wants them"),
        ("FP32", (1,), [None], "not numbers"),
        ("FP32", (1,), [{}], "not numbers"),
        ("BOOL", (1,), [1], "not truth values"),
        ("FP32", (4,), [[1, 2], [3]], "rows are not of equal length"),
        ("FP32", (4,), [1, 2, 3], "says 4 elements, but there are 3"),
        ("FP32", (1,), None, "says 1 elements, but there are 0"),
        ("INT64", (1,), [2**70], "INT64 cannot hold"),
        ("FP32", (1,), [10**400], "FP32 cannot hold"),
        ("FP32", (2,), ["x" * 1000, 1], "not numbers"),
        ("FP32", (2,), [[[1]], [2]], "rows are not of equal length"),
    ],
)
def test_values_that_do_not_fit(datatype, shape, values, says):
    with pytest.raises(TensorError, match=says):
        read_array(InputTensor("x", datatype, shape, values=values))


def test_a_type_that_is_not_taken_is_refused_with_those_that_are():
    with pytest.raises(TensorError, match=r"'image' is sent as 'FP64'\. Send it as BYTES or UINT8\.") as caught:
        check_datatype(InputTensor("image", "FP64", (1,), b""), ("BYTES", "UINT8"))
    assert caught.value.field == "datatype"
    with pytest.raises(TensorError, match="no data type of the protocol"):
        check_datatype(InputTensor("image", "uint8", (1,), b""), ("BYTES", "UINT8"))


def test_a_number_too_large_for_its_type_becomes_infinite_which_the_model_input_is_refused_for():
    assert np.isinf(read_array(InputTensor("x", "FP32", (1,), values=[1e300]))).all()
