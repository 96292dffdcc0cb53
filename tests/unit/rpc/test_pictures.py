"""The contract's images and tensors as model inputs."""

import numpy as np
import pytest
from cpu_time import least_cpu_seconds

from xai_proto import explanation_pb2 as pb
from xai_sidecar import errors
from xai_sidecar.rpc.pictures import picture_of, read_tensor
from xai_sidecar.serving.requests import ModelInput, Pixels


def tensor(array, dtype, **changes):
    return pb.Tensor(**{"dtype": dtype, "shape": array.shape, "data": array.tobytes(), **changes})


def test_tensors_are_read_in_their_order():
    for dtype, kind in (("<f4", pb.DATA_TYPE_FLOAT32), ("<f2", pb.DATA_TYPE_FLOAT16), ("u1", pb.DATA_TYPE_UINT8)):
        array = np.arange(24).reshape(2, 3, 4).astype(dtype)
        np.testing.assert_array_equal(read_tensor(tensor(array, kind)), array)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (pb.Tensor(shape=[1], data=b"x"), "dtype"),
        (pb.Tensor(dtype=9, shape=[1], data=b"x"), "dtype"),
        (pb.Tensor(dtype=3, shape=[-1, -1], data=b"x"), "shape"),
        (pb.Tensor(dtype=3, shape=[2], data=b"x"), "data"),
        (pb.Tensor(dtype=3, shape=[2**62, 2**62], data=b"x"), "data"),
        (pb.Tensor(dtype=1, data=b"x"), "data"),
        (pb.Tensor(dtype=3, shape=[1] * 40, data=b"x"), "shape"),
        (pb.Tensor(dtype=3, shape=[2**62, 2**62, 0]), "shape"),
        (pb.Tensor(dtype=1, shape=[2**62] * 1_000_000, data=b"x"), "shape"),
        (pb.Tensor(dtype=1, shape=[-1] * 1_000_000, data=b"x"), "shape"),
    ],
)
def test_tensors_that_do_not_fit_together(message, field):
    def refused():
        with pytest.raises(errors.TensorError) as caught:
            read_tensor(message)
        assert caught.value.field == field
        assert len(caught.value.message) < 300

    assert least_cpu_seconds(refused) < 0.05


def test_an_image_is_a_picture_of_its_kind():
    array = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert picture_of(pb.Image(encoded=b"file")).data == b"file"
    for field, kind in (("pixels", Pixels), ("model_input", ModelInput)):
        picture = picture_of(pb.Image(**{field: tensor(array, pb.DATA_TYPE_UINT8)}))
        assert type(picture) is kind
        np.testing.assert_array_equal(picture.array, array)
        with pytest.raises(errors.TensorError) as caught:
            picture_of(pb.Image(**{field: tensor(array, pb.DATA_TYPE_FLOAT32)}))
        assert caught.value.field == f"{field}.data"
    with pytest.raises(errors.PictureError) as caught:
        picture_of(pb.Image())
    assert caught.value.field == ""
