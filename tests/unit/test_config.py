"""The config: defaults, overrides, and errors that name the key and the cure."""

from pathlib import Path

import pytest

from xai_sidecar.config import load_config, load_labels, parse_config
from xai_sidecar.config.upstream import upstream_address
from xai_sidecar.errors import ConfigError
from xai_sidecar.paths import cache_folder


def parse(*overrides, **sections):
    return parse_config({"model": {"factory": "nets:small"}, **sections}, overrides)


def refused(*overrides, **sections):
    with pytest.raises(ConfigError) as caught:
        parse(*overrides, **sections)
    return caught.value


# ------------------------------------------------------------------------------------------------ what is right


def test_defaults(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    config = parse()
    model, server = config.model, config.server
    assert (model.name, model.activation, model.device) == ("model", "softmax", "cpu")
    assert (model.arguments, model.checkpoint, model.labels) == ({}, None, None)
    assert model.compile_cache == cache_folder() / "compiled" == Path("/somewhere/xai-sidecar/compiled")
    assert (server.grpc, server.http) == ("127.0.0.1:50051", "127.0.0.1:9090")
    assert (server.max_images, server.max_explanations, server.max_targets) == (16, 16, 16)
    assert (server.queue_capacity, server.queue_bytes) == (256, 2**30)
    assert (server.slice_milliseconds, server.explain_share, server.batch_delay_milliseconds) == (20, 0.1, 0)
    assert (server.hang_seconds, server.drain_seconds) == (60, 30)
    assert config.explainers.gradcam.enabled
    assert config.explainers.gradcam.layer == ""
    assert not config.explainers.gradcam.compile_on_demand
    spec = model.input.spec()
    assert (spec.channels, spec.height, spec.width, spec.resize_height, spec.resize_width) == (3, 224, 224, 224, 224)
    assert spec.mean == (0.485, 0.456, 0.406)
    assert spec.std == (0.229, 0.224, 0.225)


def test_paths_are_relative_to_the_file(tmp_path, monkeypatch):
    folder = tmp_path / "there"
    folder.mkdir()
    for name in ("weights.ckpt", "labels.txt"):
        (folder / name).touch()
    path = folder / "sidecar.toml"
    path.write_text(
        '[model]\nfactory = "a.b:c"\ncheckpoint = "weights.ckpt"\nlabels = "labels.txt"\ncompile_cache = "cache"\n'
    )
    monkeypatch.chdir(tmp_path)
    model = load_config(path.relative_to(tmp_path)).model
    assert (model.checkpoint, model.labels) == (folder / "weights.ckpt", folder / "labels.txt")
    assert model.compile_cache == folder / "cache"
    (folder / "net.onnx").touch()
    path.write_text('[model]\nonnx = "net.onnx"\n')
    assert load_config(path.relative_to(tmp_path)).model.onnx == folder / "net.onnx"
    known = {name for name, field in type(model).model_fields.items() if "Path" in str(field.annotation)}
    assert known == {"checkpoint", "labels", "compile_cache", "onnx"}, (
        "another path has to be relative to the file, too"
    )


@pytest.mark.parametrize(
    ("override", "key", "expected"),
    [
        ("server.max_images=3", "max_images", 3),
        ("server.drain_seconds = 1.5", "drain_seconds", 1.5),
        ("server.grpc=127.0.0.2:50051", "grpc", "127.0.0.2:50051"),
        ('server.grpc="[::1]:0"', "grpc", "[::1]:0"),
        ("server.log_level=debug", "log_level", "debug"),
        ("server.queue_bytes=1048576", "queue_bytes", 2**20),
        ("server.slice_milliseconds=2.5", "slice_milliseconds", 2.5),
        ("server.explain_share=0", "explain_share", 0),
        ("server.explain_share=0.9", "explain_share", 0.9),
        ("server.batch_delay_milliseconds=1.5", "batch_delay_milliseconds", 1.5),
        ("server.hang_seconds=1", "hang_seconds", 1),
    ],
)
def test_overrides(override, key, expected):
    assert getattr(parse(override).server, key) == expected


def test_overrides_go_anywhere_and_the_last_counts():
    config = parse(
        "model.name=first",
        "model.name=last=one",
        "model.arguments.num_classes=10",
        "model.input.size=[32, 64]",
        "model.labels=['a', 'b']",
        "model.compile_cache=false",
        "explainers.gradcam.layer=layer4",
        model={"factory": "nets:small", "arguments": {"depth": 3}},
    )
    assert config.model.name == "last=one"
    assert config.model.arguments == {"depth": 3, "num_classes": 10}
    assert config.model.input.size == (32, 64)
    assert config.model.labels == ["a", "b"]
    assert config.model.compile_cache is False
    assert config.explainers.gradcam.layer == "layer4"


@pytest.mark.parametrize(
    ("given", "resize"),
    [
        ({"size": 32}, (32, 32)),
        ({"size": 32, "resize": 40}, (40, 40)),
        ({"size": [32, 64], "resize": 40}, (40, 80)),
        ({"size": [64, 32], "resize": 33}, (66, 33)),
        ({"size": [32, 64], "resize": [50, 70]}, (50, 70)),
    ],
)
def test_resize(given, resize):
    spec = parse(model={"factory": "nets:small", "input": given}).model.input.spec()
    assert (spec.resize_height, spec.resize_width) == resize


def test_grey_models_have_their_own_default_statistics():
    spec = parse("model.input.channels=1").model.input.spec()
    assert (spec.channels, spec.mean, spec.std) == (1, (0,), (1,))
    spec = parse("model.input.channels=1", "model.input.mean=0.5", "model.input.std=[0.2]").model.input.spec()
    assert (spec.mean, spec.std) == ((0.5,), (0.2,))


def test_batch_sizes_are_sorted_once_each():
    assert parse("model.batch_sizes=[8, 1, 4, 4]").model.batch_sizes == [1, 4, 8]


# ------------------------------------------------------------------------------------------------ the evaluator


def test_the_evaluator_is_off_by_default():
    evaluator = parse().evaluator
    assert (evaluator.enabled, evaluator.sample_rate, evaluator.keep_pictures, evaluator.store) == (False, 0, False, "")
    assert (evaluator.interval_seconds, evaluator.window_samples, evaluator.window_seconds) == (5, 500, 86_400)
    assert evaluator.device_share == 0.5
    assert (evaluator.explainers, evaluator.classes, evaluator.protocol) == ([], [], "srg")
    assert evaluator.auto.weights == {"faithfulness/srg": 1.0, "localization/pointing_game": 0.5}
    assert evaluator.auto.vetoes == ["class_sensitivity", "robustness"]
    assert (evaluator.auto.fallback, evaluator.auto.min_samples) == ("gradcam", 10)


def test_an_evaluator():
    evaluator = parse(
        "evaluator.sample_rate=0.01",
        "evaluator.explainers=['rise', 'gradcam', 'rise']",
        "evaluator.metrics=['robustness']",
        "evaluator.store=postgresql://somebody@somewhere/some",
        "evaluator.keep_pictures=true",
        "evaluator.auto.fallback=rise",
        "evaluator.auto.min_samples=2",
        evaluator={"auto": {"weights": {"robustness": 2, "class_sensitivity": 0}}},
    ).evaluator
    assert (evaluator.enabled, evaluator.sample_rate, evaluator.keep_pictures) == (True, 0.01, True)
    assert (evaluator.explainers, evaluator.metrics) == (["rise", "gradcam"], ["robustness"])
    assert evaluator.store == "postgresql://somebody@somewhere/some"
    assert (evaluator.auto.fallback, evaluator.auto.min_samples) == ("rise", 2)
    assert evaluator.auto.weights == {"robustness": 2, "class_sensitivity": 0}


# ------------------------------------------------------------------------------------------------ what is wrong


@pytest.mark.parametrize(
    ("override", "field", "told"),
    [
        ("server.max_imges=3", "server.max_imges", "Did you mean 'max_images'?"),
        ("server.qqqqq=3", "server.qqqqq", "Known here: grpc, http"),
        ("model.inptu.size=3", "model.inptu", "Did you mean 'input'?"),
        ("servers.grpc=x", "servers", "Did you mean 'server'?"),
        ("explainers.rise.masks=9", "explainers.rise.masks", "greater than or equal to 16"),
        ("explainers.rise.mask_count=9", "explainers.rise.masks", "greater than or equal to 16"),
        ("explainers.rise={masks = 16, mask_count = 16}", "explainers.rise", "masks and mask_count are the same"),
        ("explainers.lime.masks=9", "explainers.lime", "Known here: precision, gradient, guided_backprop"),
        ("explainers.gradcam.layr=x", "explainers.gradcam.layr", "Did you mean 'layer"),
        ("model.factory=abc", "model.factory", "module:callable"),
        ("model.device=tpu", "model.device", "cpu, gpu or ascend"),
        ("model.device=cpu:x", "model.device", "cpu, gpu or ascend"),
        ("model.activation=relu", "model.activation", "'softmax' or 'sigmoid'"),
        ("model.batch_sizes=[2, 4]", "model.batch_sizes", "1 must be among"),
        ("model.batch_sizes=[]", "model.batch_sizes", "at least 1"),
        ("model.batch_sizes=[1, 0]", "model.batch_sizes", "greater than or equal to 1"),
        ("model.checkpoint=x.pth", "model.checkpoint", "mindspore.save_checkpoint"),
        ("model.checkpoint=missing.ckpt", "model.checkpoint", "there is no file"),
        ("model.labels=missing.txt", "model.labels", "there is no file"),
        ("model.input.mean=[0.1, 0.2]", "model.input.mean", "one finite number for each of the 3 channels"),
        ("model.input.std=0", "model.input.std", "must be above 0"),
        ("model.input.size=0", "model.input.size", "greater than or equal to 1"),
        ("model.input.size=[1, 2, 3]", "model.input.size", "[height, width]"),
        ("model.input.resize=100", "model.input.resize", "resized to 100 x 100, less than the input of 224 x 224"),
        ("model.input.resize=[300, 200]", "model.input.resize", "less than the input"),
        ("model.input.interpolation=best", "model.input.interpolation", "'bilinear'"),
        ("explainers.gradcam.normalization=sum", "explainers.gradcam.normalization", "'none' or 'max'"),
        ("server.grpc=50051", "server.grpc", "gRPC is served"),
        ("server.http=host", "server.http", "/metrics"),
        ("server.max_images=0", "server.max_images", "greater than or equal to 1"),
        ("server.drain_seconds=0", "server.drain_seconds", "greater than 0"),
        ("server.queue_bytes=1048575", "server.queue_bytes", "greater than or equal to 1048576"),
        ("server.slice_milliseconds=0", "server.slice_milliseconds", "greater than 0"),
        ("server.slice_milliseconds=10001", "server.slice_milliseconds", "less than or equal to 10000"),
        ("server.explain_share=-0.1", "server.explain_share", "greater than or equal to 0"),
        ("server.explain_share=0.91", "server.explain_share", "less than or equal to 0.9"),
        ("server.explain_share=nan", "server.explain_share", "less than or equal to 0.9"),
        ("server.batch_delay_milliseconds=-1", "server.batch_delay_milliseconds", "greater than or equal to 0"),
        ("server.batch_delay_milliseconds=1001", "server.batch_delay_milliseconds", "less than or equal to 1000"),
        ("server.hang_seconds=0.5", "server.hang_seconds", "greater than or equal to 1"),
        ("server.hang_seconds=inf", "server.hang_seconds", "less than or equal to 3600"),
        ("server.log_format=xml", "server.log_format", "'json'"),
        ("evaluator.sample_rate=1.1", "evaluator.sample_rate", "less than or equal to 1"),
        ("evaluator.sample_rate=-0.1", "evaluator.sample_rate", "greater than or equal to 0"),
        ("evaluator.sample_rate=nan", "evaluator.sample_rate", "less than or equal to 1"),
        ("evaluator.sampling_rate=1", "evaluator.sampling_rate", "Did you mean 'sample_rate'?"),
        ("evaluator.interval_seconds=0", "evaluator.interval_seconds", "greater than 0"),
        ("evaluator.explainers=['lime']", "evaluator.explainers", "there is no explainer 'lime'; there are gradient,"),
        ("evaluator.metrics=[]", "evaluator.metrics", "at least 1"),
        ("evaluator.metrics=['iosr']", "evaluator.metrics", "there is no metric 'iosr'; there are faithfulness/srg,"),
        ("evaluator.protocol=imagenet", "evaluator.protocol", "'rise'"),
        ("evaluator.max_passes=0", "evaluator.max_passes", "greater than or equal to 1"),
        ("evaluator.device_share=0", "evaluator.device_share", "greater than 0"),
        ("evaluator.device_share=1.5", "evaluator.device_share", "less than or equal to 1"),
        ("evaluator.slice_milliseconds=0", "evaluator.slice_milliseconds", "greater than 0"),
        ("evaluator.pending_bytes=65535", "evaluator.pending_bytes", "greater than or equal to 65536"),
        ("evaluator.max_age_seconds=0", "evaluator.max_age_seconds", "greater than 0"),
        ("evaluator.quiet_seconds=inf", "evaluator.quiet_seconds", "less than or equal to"),
        ("evaluator.window_samples=1", "evaluator.window_samples", "greater than or equal to 2"),
        ("evaluator.window_seconds=0", "evaluator.window_seconds", "greater than 0"),
        ("evaluator.positive_probability=1", "evaluator.positive_probability", "less than 1"),
        ("evaluator.ood_percentile=0", "evaluator.ood_percentile", "greater than 0"),
        ("evaluator.store_bytes=1000", "evaluator.store_bytes", "greater than or equal to 1048576"),
        ("evaluator.retention_days=0", "evaluator.retention_days", "greater than 0"),
        ("evaluator.auto.fallback=best", "evaluator.auto.fallback", "there is no explainer 'best'"),
        ("evaluator.auto.min_samples=1", "evaluator.auto.min_samples", "greater than or equal to 2"),
        ("evaluator.auto.weights={iosr=1.0}", "evaluator.auto.weights", "there is no metric 'iosr'"),
        ("evaluator.auto.weights={}", "evaluator.auto.weights", "at least one weight"),
        ("evaluator.auto.weights={robustness=0}", "evaluator.auto.weights", "at least one weight"),
        ("evaluator.auto.weights={robustness=-1}", "evaluator.auto.weights", "greater than or equal to 0"),
        ("model.factory.x=3", "model.factory.x", "'factory' is a value, not a section"),
        ("model=3", "model", "dictionary"),
    ],
)
def test_wrong_values(override, field, told):
    error = refused(override)
    assert error.field == field
    assert told in error.message
    assert str(error) == f"{field}: {error.message}"
    assert "\n" not in str(error)


@pytest.mark.parametrize("key", ["server.grpc", "server.http"])
@pytest.mark.parametrize("port", [65536, 99999])
def test_a_port_beyond_all_ports(key, port):
    assert refused(f"{key}=127.0.0.1:{port}").field == key


@pytest.mark.parametrize("override", ["model.input.mean=abc", "model.input.size=abc", "model.input.size=0"])
def test_one_mistake_is_counted_once(override):
    """However many types a key may have."""
    assert "more after this one" not in refused(override).message


def test_several_mistakes_are_counted():
    assert "(2 more after this one.)" in refused("server.max_images=0", "server.max_targets=0", "model.name=''").message


def test_unknown_keys_come_first():
    error = refused("server.max_images=0", "server.grcp=a:1")
    assert (error.field, "Did you mean 'grpc'?" in error.message) == ("server.grcp", True)


@pytest.mark.parametrize("override", ["foo", "=3", "model.=3", ""])
def test_overrides_of_another_form(override):
    assert "is not of the form key.path=value" in str(refused(override))


def test_without_a_model():
    with pytest.raises(ConfigError, match=r"^model: this key is required"):
        parse_config({})


@pytest.mark.parametrize(
    ("model", "field", "named"),
    [
        ({}, "model.factory", ("model.factory", "model.onnx", "model.oip")),
        ({"factory": "nets:small", "onnx": "model.onnx"}, "model.onnx", ("model.factory", "model.onnx")),
        ({"oip": "grpc://a:1/net", "factory": "nets:small"}, "model.oip", ("model.factory", "model.oip")),
        ({"onnx": "model.onnx", "oip": "grpc://a:1/net"}, "model.oip", ("model.onnx", "model.oip")),
        ({"onnx": "model.onnx", "checkpoint": "net.ckpt"}, "model.checkpoint", ("model.onnx", "model.factory")),
        ({"factory": "nets:small", "onnx_output": "logits"}, "model.onnx_output", ("model.onnx", "model.factory")),
        ({"onnx": "model.onnx", "upstream": {"version": "1"}}, "model.upstream", ("model.onnx", "model.oip")),
        ({"oip": "grpc://a:1/net", "device": "gpu"}, "model.device", ("model.oip", "Leave it out")),
        ({"oip": "grpc://a:1/net", "forward_engine": "openvino"}, "model.forward_engine", ("model.oip",)),
    ],
)
def test_a_model_comes_from_one_source(model, field, named):
    with pytest.raises(ConfigError) as caught:
        parse_config({"model": model})
    assert caught.value.field == field
    assert all(name in caught.value.message for name in named)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match=r"missing\.toml cannot be read.*--config"):
        load_config(tmp_path / "missing.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"binary\.toml cannot be read"):
        load_config(binary)
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("[model]\nfactory = nets:small\n")
    with pytest.raises(ConfigError, match=r"wrong\.toml is not valid TOML.*line 2"):
        load_config(wrong)


# ------------------------------------------------------------------------------------------------ labels


def test_labels(tmp_path):
    file = tmp_path / "labels.txt"
    file.write_text(" cat \ndög\n\n \n", encoding="utf-8")
    assert load_labels(file, 2) == ("cat", "dög")
    assert load_labels(["a", "b"], 2) == ("a", "b")
    assert load_labels(None, 3) == ("0", "1", "2")


@pytest.mark.parametrize("count", [1, 3])
def test_wrong_number_of_labels(count, tmp_path):
    file = tmp_path / "labels.txt"
    file.write_text("a\nb\n")
    with pytest.raises(ConfigError, match=rf"^model\.labels: .*labels\.txt has 2 labels, but the net has {count} out"):
        load_labels(file, count)
    with pytest.raises(ConfigError, match=rf"^model\.labels: model\.labels has 2 labels, .* {count} outputs"):
        load_labels(["a", "b"], count)


@pytest.mark.parametrize(
    "data",
    [
        "\ufefftench\r\ngold fish\r\nshark\r\n".encode(),
        b"tench\rgold fish\rshark",
        "tench\n\ufeffgold fish \n shark\n\n \n".encode(),  # two files put together
        "tench\ngold fish\nshark\n".encode("utf-16"),
        b"\xfe\xff" + "tench\r\ngold fish\r\nshark".encode("utf-16-be"),
        "tench\t\n\u00a0gold fish\nshark".encode(),
    ],
)
def test_label_files_as_editors_write_them(data, tmp_path):
    file = tmp_path / "labels.txt"
    file.write_bytes(data)
    assert load_labels(file, 3) == ("tench", "gold fish", "shark")


def test_labels_with_what_only_python_takes_for_an_end_of_line(tmp_path):
    file = tmp_path / "labels.txt"
    file.write_text("a\u2028b\nc\x0cd\n")
    assert load_labels(file, 2) == ("a\u2028b", "c\x0cd")


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"a\n\nb\n", "line 2 of .* is blank"),
        (b"\r\n\r\na\r\nb", "line 1 of .* is blank"),
        ("a\nb\n".encode("utf-16-le"), "zeros between its characters"),
        (b"caf\xe9\nb", "cannot be read"),
    ],
)
def test_label_files_that_are_refused(data, match, tmp_path):
    file = tmp_path / "labels.txt"
    file.write_bytes(data)
    with pytest.raises(ConfigError, match=rf"^model\.labels: .*{match}"):
        load_labels(file, 3)


def test_a_config_as_editors_write_it(tmp_path):
    file = tmp_path / "sidecar.toml"
    file.write_bytes('\ufeff[model]\r\nfactory = "a.b:c"\r\n'.encode())
    assert load_config(file).model.factory == "a.b:c"


def test_letterbox():
    spec = parse("model.input.letterbox=true", "model.input.size=[20, 30]").model.input.spec()
    assert (spec.letterbox, spec.height, spec.width) == (True, 20, 30)
    for key, field in [("stretch=true", "letterbox"), ("resize=256", "resize")]:
        assert refused("model.input.letterbox=true", f"model.input.{key}").field == f"model.input.{field}"


# ------------------------------------------------------------------------------------------------ other servers' models


@pytest.mark.parametrize(
    ("text", "server", "model", "by_grpc", "secure"),
    [
        ("grpc://127.0.0.1:8001/resnet", "grpc://127.0.0.1:8001", "resnet", True, False),
        ("grpcs://models.example:443/a-b.c", "grpcs://models.example:443", "a-b.c", True, True),
        ("http://[::1]:8000/net", "http://[::1]:8000", "net", False, False),
        ("https://a:1/net", "https://a:1", "net", False, True),
    ],
)
def test_addresses_of_models_on_other_servers(text, server, model, by_grpc, secure):
    assert parse_config({"model": {"oip": text}}).model.source == "oip"
    address = upstream_address(text)
    assert (address.server, address.model, str(address)) == (server, model, text)
    assert (address.by_grpc, address.secure) == (by_grpc, secure)


@pytest.mark.parametrize(
    "text",
    [
        *("grpc://a/net", "grpc://a:1", "grpc://a:1/", "a:1/net", "ftp://a:1/net", "grpc://a:1/b/c"),
        *("grpc://a:0/net", "grpc://a:65536/net", "grpc://a:1/net?x=1", "grpc://a b:1/net", "http://user@a:1/net/"),
    ],
)
def test_what_is_no_address_of_a_model(text):
    with pytest.raises(ConfigError) as caught:
        parse_config({"model": {"oip": text}})
    assert caught.value.field == "model.oip"


UPSTREAM_FILES = ("ca", "certificate", "key", "token")


def test_what_an_upstream_is_shown_is_in_files(tmp_path):
    names = {key: f"{key}.pem" for key in UPSTREAM_FILES}
    for name in names.values():
        (tmp_path / name).write_text("")
    config = parse_config({"model": {"oip": "grpcs://a:1/net", "upstream": names}}, folder=tmp_path)
    for key, name in names.items():
        assert getattr(config.model.upstream, key) == tmp_path / name


@pytest.mark.parametrize("key", UPSTREAM_FILES)
def test_files_for_an_upstream_have_to_be_there(tmp_path, key):
    other = {"certificate": "key", "key": "certificate"}.get(key)
    names = {key: "none.pem", **({other: "there.pem"} if other else {})}
    (tmp_path / "there.pem").write_text("")
    with pytest.raises(ConfigError) as caught:
        parse_config({"model": {"oip": "grpcs://a:1/net", "upstream": names}}, folder=tmp_path)
    assert caught.value.field == f"model.upstream.{key}"


@pytest.mark.parametrize(("key", "missing"), [("certificate", "key"), ("key", "certificate")])
def test_an_upstreams_certificate_and_key_go_together(tmp_path, key, missing):
    (tmp_path / "there.pem").write_text("")
    with pytest.raises(ConfigError) as caught:
        parse_config({"model": {"oip": "grpcs://a:1/net", "upstream": {key: "there.pem"}}}, folder=tmp_path)
    assert caught.value.field == f"model.upstream.{missing}"


def test_an_upstream_times_out_before_a_batch_counts_as_hanging():
    model = {"oip": "grpc://a:1/net", "upstream": {"timeout_seconds": 60}}
    with pytest.raises(ConfigError) as caught:
        parse_config({"model": model})
    assert caught.value.field == "model.upstream.timeout_seconds"
    assert parse_config({"model": model, "server": {"hang_seconds": 61}})
