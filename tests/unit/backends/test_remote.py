"""Models on other servers as a backend, on servers written from the standard alone."""

import threading
import time
from functools import partial

import grpc
import numpy as np
import pytest
from certificates import Authority, write_pair
from oip_servers import CLASSES, FEATURES, SHAPE, GrpcOipServer, HttpOipServer, OipModel, RefusalError

from xai_sidecar.backends.loading import PatientLoading, load_backend
from xai_sidecar.backends.remote.failures import code_of, failure
from xai_sidecar.backends.remote.outputs import kind_of, logits, rows_of
from xai_sidecar.config import parse_config
from xai_sidecar.config.upstream import upstream_address
from xai_sidecar.engine.work import Features, Forward, InputGradient, Kind, MaskedForward, OodScore
from xai_sidecar.errors import ConfigError, DeviceError, UpstreamBusyError, UpstreamError
from xai_sidecar.explainers.activations import ACTIVATIONS
from xai_sidecar.ood.head import OodHead, TrainingRecord, save_head

BINARY_AND_JSON = [
    pytest.param(GrpcOipServer, id="grpc"),
    pytest.param(HttpOipServer, id="http"),
    pytest.param(partial(HttpOipServer, binary=False), id="json"),
]
PATIENCE = 20


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """It is looked at more often than once a second, for which tests need not wait."""
    for name in (
        "monitor._PERIOD_SECONDS",
        "monitor._AWAY_SECONDS",
        "monitor._TRUST_SECONDS",
        "backend._AGAIN_SECONDS",
    ):
        monkeypatch.setattr(f"xai_sidecar.backends.remote.{name}", 0.05)


def images(count, seed=1):
    return np.random.default_rng(seed).standard_normal((count, *SHAPE)).astype(np.float32)


def until(true):
    patience = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < patience
        time.sleep(0.01)


def config_of(server, upstream=None, **model):
    section = {
        "oip": f"{server.scheme}://127.0.0.1:{server.port}/net",
        "batch_sizes": [1, 2, 4],
        "upstream": {"output": "scores", **(upstream or {})},
        **model,
    }
    section["input"] = {"size": list(SHAPE[1:]), "mean": 0.0, "std": 1.0, **model.get("input", {})}
    return parse_config({"model": section})


@pytest.fixture
def serve(request):
    def serve(model, make=GrpcOipServer, port=0):
        server = make(model, port)
        request.addfinalizer(server.stop)
        return server

    return serve


@pytest.fixture
def load(request):
    """A backend of a model that a server has, with its forward passes warm."""

    def load(server, upstream=None, kinds=(Forward.kind,), loading=load_backend, **model):
        backend = loading(config_of(server, upstream, **model))
        request.addfinalizer(backend.close)
        backend.refused = backend.warm_up(list(kinds), lambda line: None)
        return backend

    return load


# ------------------------------------------------------------------------------------------------ answers


@pytest.mark.parametrize("make", BINARY_AND_JSON)
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_passes_are_the_models(serve, load, make, layout):
    model = OipModel(layout=layout)
    backend = load(serve(model, make))
    assert (backend.class_count, sorted(backend.costs(Forward.kind))) == (CLASSES, [1, 2, 4])
    for size in (1, 2, 4):
        (found,) = backend.run(Forward.kind, (images(size),))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, model.logits_of(images(size)), rtol=1e-5, atol=1e-6)
    masks = np.random.default_rng(2).random((2, *SHAPE[1:]), np.float32)
    work = MaskedForward(images(1)[0], masks, fill=0.5)
    (found,) = backend.run(work.kind, work.rows)
    covered = images(1) * masks[:, None] + 0.5 * (1 - masks[:, None])
    np.testing.assert_allclose(found, model.logits_of(covered), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make", BINARY_AND_JSON)
@pytest.mark.parametrize(("datatype", "tolerance"), [("FP64", 1e-5), ("FP16", 2e-2)])
def test_other_floating_point_numbers(serve, load, make, datatype, tolerance):
    model = OipModel(datatype=datatype)
    (found,) = load(serve(model, make)).run(Forward.kind, (images(2),))
    np.testing.assert_allclose(found, model.logits_of(images(2)), atol=tolerance)


@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
def test_contents_that_are_not_raw(serve, load, datatype):
    model = OipModel(datatype=datatype)
    model.raw = False
    (found,) = load(serve(model)).run(Forward.kind, (images(2),))
    np.testing.assert_allclose(found, model.logits_of(images(2)), atol=1e-5)


def test_a_server_that_says_nothing_of_its_tensors(serve, load):
    model = OipModel(layout="nhwc")
    model.says_tensors = False
    server = serve(model)
    with pytest.raises(ConfigError) as caught:
        load(server)
    assert caught.value.field == "model.upstream.input"
    backend = load(server, {"input": "pictures"}, input={"layout": "nhwc"})
    assert backend.class_count == CLASSES
    np.testing.assert_allclose(backend.run(Forward.kind, (images(2),))[0], model.logits_of(images(2)), atol=1e-5)


@pytest.mark.parametrize("gives", ["auto", "probabilities"])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_probabilities_come_back_as_they_were(serve, load, activation, gives):
    model, inputs = OipModel(**{activation: True}), 3 * images(2)
    backend = load(serve(model), {"gives": gives}, activation=activation)
    (found,) = backend.run(Forward.kind, (inputs,))
    expected = ACTIVATIONS[activation](model.logits_of(inputs))
    np.testing.assert_allclose(ACTIVATIONS[activation](found), expected, atol=1e-6)
    assert "probabilities" in backend.engine_note


def test_logits_are_taken_for_what_they_are(serve, load):
    assert load(serve(OipModel())).engine_note == ""


def test_features_and_ood_scores(serve, load, tmp_path):
    model = OipModel()
    server = serve(model)
    upstream = {"features": "features"}
    kinds = [Forward.kind, Features.kind]
    plain = load(server, upstream, kinds)
    features, answers = plain.run(Features.kind, (images(2),))
    np.testing.assert_allclose(features, model.features_of(images(2)), atol=1e-5)
    np.testing.assert_allclose(answers, model.logits_of(images(2)), atol=1e-5)
    weights = np.random.default_rng(3).standard_normal((CLASSES, FEATURES)).astype(np.float32)
    record = TrainingRecord(9, 0.0, {"noise": 0.9}, plain.version, FEATURES, CLASSES, "folders", "pictures", 1, 0)
    head = OodHead(weights, np.arange(CLASSES, dtype=np.int32), np.linspace(-1, 1, 9, dtype=np.float32), record)
    save_head(tmp_path / "ood.safetensors", head)
    ood = parse_config({"model": {"onnx": __file__}, "ood": {"checkpoint": str(tmp_path / "ood.safetensors")}}).ood
    loaded = config_of(server, upstream).model_copy(update={"ood": ood})
    backend = load_backend(loaded)
    try:
        assert backend.warm_up([Forward.kind, OodScore.kind], lambda line: None) == {}
        scores, _, answers = backend.run(OodScore.kind, (images(2),))
    finally:
        backend.close()
    found = model.features_of(images(2))
    expected = (found / np.linalg.norm(found, axis=1, keepdims=True)) @ (
        weights / np.linalg.norm(weights, axis=1, keepdims=True)
    ).T
    np.testing.assert_allclose(scores, expected.max(axis=1), atol=1e-5)
    np.testing.assert_allclose(answers, model.logits_of(images(2)), atol=1e-5)


def test_gradients_and_features_that_cannot_be_had_are_refused_with_the_reason(serve, load):
    gradient = InputGradient(images(1), np.zeros(1, np.int32)).kind
    kinds = [Forward.kind, gradient, Kind("layer_gradient", "x"), Features.kind, MaskedForward(images(1)[0], []).kind]
    backend = load(serve(OipModel()), kinds=kinds)
    assert set(backend.refused) == {gradient, Kind("layer_gradient", "x"), Features.kind}
    assert "only its outputs" in backend.refused[gradient]
    assert "model.upstream.features" in backend.refused[Features.kind]


# ------------------------------------------------------------------------------------------------ batch sizes


def test_a_limit_of_batches_is_found(serve, load):
    model = OipModel()
    model.most_rows = 2
    backend = load(serve(model))
    assert sorted(backend.costs(Forward.kind)) == [1, 2]
    assert "at most 2" in backend.engine_note


def test_a_batch_size_that_is_fixed(serve, load):
    model = OipModel()
    model.batch = 3
    assert sorted(load(serve(model)).costs(Forward.kind)) == [3]


def test_batch_sizes_whose_answers_differ_are_left_out(serve, load):
    model = OipModel()
    model.per_batch = 1.0
    backend = load(serve(model))
    assert sorted(backend.costs(Forward.kind)) == [1]
    assert "batch of 2 its answers are others" in backend.engine_note


# ------------------------------------------------------------------------------------------------ what does not fit


@pytest.mark.parametrize(
    ("upstream", "model", "field", "named"),
    [
        ({"output": "nothing"}, {}, "model.upstream.output", "scores, features"),
        ({"output": None}, {}, "model.upstream.output", "several outputs: scores, features"),
        ({"input": "nothing"}, {}, "model.upstream.input", "pictures"),
        ({"features": "nothing"}, {}, "model.upstream.features", "scores, features"),
        ({"version": "7"}, {}, "model.oip", "no such model"),
        ({}, {"input": {"size": 5}}, "model.input", "(n, 3, 6, 8)"),
        ({}, {"input": {"layout": "nhwc"}}, "model.input", "layout"),
    ],
)
def test_a_config_that_does_not_fit_ends_the_start(serve, load, upstream, model, field, named):
    with pytest.raises(ConfigError) as caught:
        load(serve(OipModel()), upstream, **model)
    assert caught.value.field == field
    assert named in caught.value.message


def test_tensors_of_other_types_are_refused(serve, load):
    model = OipModel()
    model.datatype = "UINT8"
    with pytest.raises(ConfigError, match="UINT8"):
        load(serve(model))


def test_the_only_output_besides_the_features_is_meant(serve, load):
    model = OipModel()
    backend = load(serve(model), {"output": None, "features": "features"}, [Forward.kind, Features.kind])
    np.testing.assert_allclose(backend.run(Forward.kind, (images(1),))[0], model.logits_of(images(1)), atol=1e-5)


# ------------------------------------------------------------------------------------------------ what it is


def test_the_version_is_of_the_model_and_not_of_the_server_or_the_day(serve, load):
    versions = {
        name: load(serve(model, make)).version
        for name, model, make in [
            ("one", OipModel(), GrpcOipServer),
            ("again", OipModel(), GrpcOipServer),
            ("by rest", OipModel(), HttpOipServer),
            ("newer", OipModel(version="2"), GrpcOipServer),
            ("probabilities", OipModel(softmax=True), GrpcOipServer),
        ]
    }
    assert versions["one"] == versions["again"] == versions["by rest"]
    assert len(set(versions.values())) == 3


def test_a_model_without_a_version_is_doubted(serve, load):
    assert load(serve(OipModel())).weights_warning == ""
    assert "names no version" in load(serve(OipModel(version=""))).weights_warning


# ------------------------------------------------------------------------------------------------ going away


@pytest.mark.parametrize("make", [GrpcOipServer, HttpOipServer])
def test_it_goes_away_and_comes_back(serve, load, make):
    model = OipModel()
    server = serve(model, make)
    backend = load(server)
    assert backend.unready == ""
    server.stop()
    with pytest.raises(UpstreamError) as caught:
        backend.run(Forward.kind, (images(1),))
    assert caught.value.code == "UNAVAILABLE" and caught.value.retry_seconds
    until(lambda: backend.unready)
    assert server.scheme in backend.unready
    began = time.monotonic()
    with pytest.raises(UpstreamError):
        backend.run(Forward.kind, (images(1),))
    assert time.monotonic() - began < 5  # without asking
    serve(model, make, server.port)
    until(lambda: not backend.unready)
    np.testing.assert_allclose(backend.run(Forward.kind, (images(1),))[0], model.logits_of(images(1)), atol=1e-5)


def test_a_model_that_is_unloaded_is_away(serve, load):
    model = OipModel()
    backend = load(serve(model))
    model.ready = False
    until(lambda: "not ready" in backend.unready)
    model.ready = True
    until(lambda: not backend.unready)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda model: setattr(model, "version", "2"), id="version"),
        pytest.param(lambda model: setattr(model, "platform", "other"), id="platform"),
        pytest.param(lambda model: setattr(model, "layout", "nhwc"), id="shape"),
        pytest.param(lambda model: setattr(model, "second", -model.second), id="weights"),
    ],
)
def test_another_model_than_at_the_start_is_refused_after_it_was_away(serve, load, change):
    model = OipModel()
    server = serve(model)
    backend = load(server)
    server.stop()
    until(lambda: backend.unready)
    other = OipModel()
    change(other)
    second = serve(other, port=server.port)
    until(lambda: "another model than at the start" in backend.unready)
    with pytest.raises(UpstreamError, match="Start this server anew") as caught:
        backend.run(Forward.kind, (images(1),))
    assert caught.value.retry_seconds is None
    second.stop()
    serve(model, port=server.port)  # it was a mistake, and is taken back
    until(lambda: not backend.unready)
    backend.run(Forward.kind, (images(1),))


@pytest.mark.parametrize("make", [GrpcOipServer, HttpOipServer])
def test_another_version_while_it_is_there_is_refused(serve, load, make):
    model = OipModel()
    backend = load(serve(model, make))
    model.version, model.second = "2", -model.second
    with pytest.raises(UpstreamError, match=r"'1'.*'2'"):
        backend.run(Forward.kind, (images(1),))
    assert "another model" in backend.unready


def test_other_metadata_while_it_is_there_are_refused(serve, load):
    model = OipModel()
    backend = load(serve(model))
    model.batch = 1
    until(lambda: "metadata" in backend.unready)


def test_a_pinned_version_is_asked_for(serve, load):
    model = OipModel(version="3")
    backend = load(serve(model), {"version": "3"})
    model.version = "4"
    with pytest.raises(UpstreamError, match="no such model"):
        backend.run(Forward.kind, (images(1),))


# ------------------------------------------------------------------------------------------------ failures


@pytest.mark.parametrize("make", [GrpcOipServer, HttpOipServer])
def test_an_answer_that_takes_too_long_is_unavailable(serve, load, make):
    model = OipModel()
    backend = load(serve(model, make), {"timeout_seconds": 0.4})
    model.delay = 2.0
    with pytest.raises(UpstreamError, match="timeout_seconds"):
        backend.run(Forward.kind, (images(1),))
    model.delay = 0.0
    until(lambda: not backend.unready)
    backend.run(Forward.kind, (images(1),))


@pytest.mark.parametrize("make", [GrpcOipServer, HttpOipServer])
@pytest.mark.parametrize(
    ("code", "words", "kind"),
    [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "too many", UpstreamBusyError),
        (grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size", UpstreamBusyError),
        (grpc.StatusCode.UNAVAILABLE, "going down", UpstreamError),
        (grpc.StatusCode.INVALID_ARGUMENT, "such a number", DeviceError),
    ],
)
def test_refusals_are_told_as_what_they_are(serve, load, make, code, words, kind):
    model = OipModel()
    backend = load(serve(model, make))
    model.refusal = RefusalError(code, words)
    with pytest.raises(kind, match=words):
        backend.run(Forward.kind, (images(1),))


@pytest.mark.parametrize("make", [GrpcOipServer, HttpOipServer])
def test_answers_of_other_shapes_are_refused(serve, load, make):
    model = OipModel()
    backend = load(serve(model, make))
    first, model.answer = model.answer, lambda *asked: {key: each[:1] for key, each in first(*asked).items()}
    with pytest.raises(DeviceError, match="a row for each"):
        backend.run(Forward.kind, (images(2),))
    model.answer = lambda *asked: {key: each[:, :3] for key, each in first(*asked).items()}
    with pytest.raises(UpstreamError, match="another model than at the start"):
        backend.run(Forward.kind, (images(1),))
    until(lambda: "another model" in backend.unready)
    model.answer = first
    until(lambda: not backend.unready)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"no JSON", b"[]", b"{}", b'{"outputs": [{"name": "scores"}]}'),
        b'{"outputs": [{"name": "scores", "datatype": "FP32", "shape": [1, 5], "data": "x"}]}',
    ],
)
def test_answers_that_are_not_of_the_protocol_are_failures(serve, load, monkeypatch, content):
    backend = load(serve(OipModel(), HttpOipServer))
    monkeypatch.setattr(backend._client, "_request", lambda *asked: (200, {}, content))
    with pytest.raises(DeviceError):
        backend.run(Forward.kind, (images(1),))


def test_a_failure_that_no_waiting_mends_ends_a_patient_start(serve):
    model = OipModel()
    model.answer = lambda *asked: {}
    with pytest.raises(ConfigError, match="a row for each"):
        PatientLoading()(config_of(serve(model)))


ADDRESS = upstream_address("grpc://a:1/net")


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_every_status_is_an_error_of_ours(code):
    error = failure(ADDRESS, code, "")
    kinds = {"RESOURCE_EXHAUSTED": UpstreamBusyError, "INTERNAL": DeviceError, "UNAVAILABLE": UpstreamError}
    assert "grpc://a:1" in error.message
    assert isinstance(error, kinds.get(code.name, (UpstreamError, DeviceError)))


def test_a_message_that_is_too_large_is_not_taken_later_either():
    words = "SERVER: Received message larger than max (4816942 vs. 4194304)"
    assert isinstance(failure(ADDRESS, grpc.StatusCode.RESOURCE_EXHAUSTED, words), DeviceError)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, DeviceError), (404, UpstreamError), (429, UpstreamBusyError), (500, DeviceError), (503, UpstreamError)],
)
def test_statuses_of_http(status, kind):
    assert isinstance(failure(ADDRESS, code_of(status), ""), kind)


@pytest.mark.parametrize("make", [GrpcOipServer, HttpOipServer])
def test_by_tls_with_an_authority_that_is_trusted(serve, load, tmp_path, make):
    authority, model = Authority(), OipModel()
    server = serve(model, partial(make, pair=write_pair(tmp_path, authority.issue("server"))))
    for name, pem in (("ca", authority.pem), ("other", Authority().pem)):
        (tmp_path / f"{name}.pem").write_bytes(pem)
    backend = load(server, {"ca": str(tmp_path / "ca.pem")})
    np.testing.assert_allclose(backend.run(Forward.kind, (images(1),))[0], model.logits_of(images(1)), atol=1e-5)
    for upstream in ({"ca": str(tmp_path / "other.pem")}, {}):
        with pytest.raises(ConfigError, match="does not answer"):
            load(server, upstream)


@pytest.mark.parametrize("scheme", ["grpc", "http"])
@pytest.mark.parametrize(
    ("host", "content", "says"),
    [
        ("127.0.0.1", "", "has no token"),
        ("127.0.0.1", "two words", "has no token"),
        ("127.0.0.1", "secr\u00e9t", "cannot be read"),
        ("192.0.2.1", "secret", "for everybody on the way to read"),
    ],
)
def test_tokens_that_are_none_or_would_be_read_on_their_way(tmp_path, scheme, host, content, says):
    (tmp_path / "token").write_text(content)
    upstream = {"token": str(tmp_path / "token"), "output": "scores"}
    with pytest.raises(ConfigError, match=says) as caught:
        load_backend(parse_config({"model": {"oip": f"{scheme}://{host}:1/net", "upstream": upstream}}))
    assert caught.value.field == "model.upstream.token"
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["grpcs", "https"])
def test_a_certificate_that_is_none_is_refused(tmp_path, scheme):
    for name in ("certificate", "key"):
        (tmp_path / name).write_text("no certificate")
    upstream = {name: str(tmp_path / name) for name in ("certificate", "key")} | {"output": "scores"}
    with pytest.raises(ConfigError) as caught:
        load_backend(parse_config({"model": {"oip": f"{scheme}://127.0.0.1:1/net", "upstream": upstream}}))
    assert caught.value.field == "model.upstream.certificate"


@pytest.mark.parametrize("scheme", ["grpcs", "https"])
def test_authorities_that_are_none_are_refused(tmp_path, scheme):
    (tmp_path / "ca.pem").write_text("no certificate")
    upstream = {"ca": str(tmp_path / "ca.pem"), "output": "scores"}
    with pytest.raises(ConfigError) as caught:
        load_backend(parse_config({"model": {"oip": f"{scheme}://127.0.0.1:1/net", "upstream": upstream}}))
    assert caught.value.field == "model.upstream.ca"


# ------------------------------------------------------------------------------------------------ the start


def test_without_patience_a_server_that_is_not_there_ends_the_start(serve):
    server = GrpcOipServer(OipModel())
    server.stop()
    with pytest.raises(ConfigError) as caught:
        load_backend(config_of(server))
    assert caught.value.field == "model.oip" and "does not answer" in caught.value.message


def test_with_patience_it_is_waited_for(serve, load):
    model = OipModel()
    server = GrpcOipServer(model)
    server.stop()
    loading, loaded = PatientLoading(), []
    thread = threading.Thread(target=lambda: loaded.append(loading(config_of(server))), daemon=True)
    thread.start()
    until(lambda: "does not answer" in loading.waiting_for)
    model.ready = False
    serve(model, port=server.port)
    until(lambda: "not ready" in loading.waiting_for)
    model.ready = True
    thread.join(PATIENCE)
    (backend,) = loaded
    assert loading.waiting_for == "" and backend.class_count == CLASSES
    backend.close()


# ------------------------------------------------------------------------------------------------ outputs


def test_logits_of_probabilities_at_their_ends():
    given = np.array([[0, 1, 0], [0.25, 0.5, 0.25]], np.float32)
    for activation in ("softmax", "sigmoid"):
        found = logits(given, "probabilities", activation)
        assert np.isfinite(found).all()
        np.testing.assert_allclose(ACTIVATIONS[activation](found), given, atol=1e-6)
    np.testing.assert_allclose(logits(given, "probabilities", "softmax")[1], np.log([0.25, 0.5, 0.25]), rtol=1e-6)
    np.testing.assert_allclose(logits(given, "probabilities", "sigmoid")[1], np.log([1 / 3, 1, 1 / 3]), atol=1e-6)


def test_what_is_not_finite_stays_so():
    given = np.array([[np.nan, 1], [0.5, 0.5]], np.float32)
    found = logits(given, "probabilities", "softmax")
    assert np.isnan(found[0, 0]) and np.isfinite(found[1]).all()


@pytest.mark.parametrize("given", [[[0.5, 0.6]], [[-0.1, 1.1]], [[3.0, -2.0]]])
def test_values_that_are_no_probabilities_are_refused(given):
    with pytest.raises(DeviceError, match=r"model\.upstream\.gives"):
        logits(np.array(given, np.float32), "probabilities", "softmax")


@pytest.mark.parametrize(
    ("values", "activation", "expected"),
    [
        ([[0.2, 0.8], [0.7, 0.3]], "softmax", "probabilities"),
        ([[0.2, 0.8], [0.7, 0.3]], "sigmoid", "probabilities"),
        ([[0.2, 0.9], [0.7, 0.3]], "softmax", "logits"),
        ([[0.2, 0.9], [0.7, 0.3]], "sigmoid", "probabilities"),
        ([[-0.2, 1.2], [0.7, 0.3]], "softmax", "logits"),
        ([[0.2, 0.8], [0.2, 0.8]], "softmax", "logits"),  # a net that says the same of all shows nothing
        ([[1.0], [1.0]], "softmax", "logits"),
    ],
)
def test_what_an_output_is_shows_in_its_values(values, activation, expected):
    assert kind_of(np.array(values, np.float32), activation) == expected


@pytest.mark.parametrize(("shape", "expected"), [((2, 3), (2, 3)), ((2, 3, 1, 1), (2, 3)), ((2, 1, 3), (2, 3))])
def test_axes_of_length_one_do_not_count(shape, expected):
    assert rows_of(np.zeros(shape, np.float32), "out").shape == expected


@pytest.mark.parametrize(("shape", "columns"), [((2, 3), 4), ((2,), None), ((), None), ((2, 3, 3), None)])
def test_outputs_of_other_shapes_are_refused(shape, columns):
    with pytest.raises(DeviceError, match="shape"):
        rows_of(np.zeros(shape, np.float32), "out", columns)
