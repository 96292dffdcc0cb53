"""Samples and quality over a real socket, through both clients."""

import asyncio
import contextlib
import io
import threading
import time

import grpc
import numpy as np
import pytest
from PIL import Image

from xai_client import (
    AsyncClient,
    Client,
    GroundTruthObject,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    PreconditionError,
    SampleFilter,
    ScoreRange,
)
from xai_proto import quality_pb2 as qpb
from xai_proto import quality_pb2_grpc as qpb_grpc

SRG = "faithfulness/srg"
SECONDS = 120
SETTINGS = (
    "evaluator.sample_rate=1",
    "evaluator.interval_seconds=0.1",
    "evaluator.device_share=1",
    "evaluator.keep_pictures=true",
    f'evaluator.metrics=["{SRG}", "faithfulness/deletion_auc", "localization/pointing_game"]',
)


def picture(number, size=(64, 40)):
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def until(what, seconds=SECONDS):
    """Waits for something to be true of what a function returns; returns that."""
    ends = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < ends, "it did not come about"
        time.sleep(0.05)
    return found


@pytest.fixture(scope="module")
def server(start_misbehaving, tmp_path_factory):
    store = f"evaluator.store=sqlite:///{tmp_path_factory.mktemp('quality')}/store.db"
    with start_misbehaving(*SETTINGS, store) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    with Client(server.grpc) as client:
        yield client


@pytest.fixture(scope="module")
def sent(client):
    """Predictions that have been measured: the first of a model input, then of pictures."""
    array = np.random.default_rng(0).standard_normal((3, 32, 32)).astype(np.float32)
    found = [client.predict(array), *(client.predict(picture(each)) for each in range(1, 6))]
    until(lambda: all(each.state == "scored" for each in client.iter_samples()))
    return found


def test_an_empty_store_has_nothing_to_show(start_misbehaving):
    with start_misbehaving(*SETTINGS, "evaluator.store=sqlite://") as running, Client(running.grpc) as client:
        page = client.list_samples(with_total_count=True, order="worst_score_first", score_of=("rise", SRG))
        assert (page.samples, page.next_page_token, page.total_count) == ((), "", 0)
        quality = client.quality()
        assert quality.auto_explainer
        assert not any(each.quality for each in quality.explainers.values())
        history = client.quality_history(bins=3, reference=(0, time.time()))
        assert (history.scores, history.traffic, history.sample_count) == ({}, (), 0)
        assert client.class_maps() == []
        with pytest.raises(NotFoundError):
            client.sample("none")


def test_without_an_evaluator_the_config_key_is_named(start_misbehaving):
    with start_misbehaving() as running, Client(running.grpc) as client:
        calls = (client.list_samples, client.quality, client.quality_history, client.class_maps)
        for call in (*calls, lambda: client.sample("a"), lambda: next(client.watch_samples())):
            with pytest.raises(PreconditionError, match=r"evaluator\.sample_rate"):
                call()
        assert client.predict(picture(1)).classes


def test_samples_are_listed_as_they_were_predicted(client, sent):
    samples = list(client.iter_samples(with_thumbnails=True, with_map_of="gradcam"))
    assert [each.request_id for each in samples] == [each.request_id for each in reversed(sent)]
    for sample, prediction in zip(samples, reversed(sent), strict=True):
        assert [each.label for each in sample.classes] == [each.label for each in prediction.classes]
        assert sample.classes[0].probability == pytest.approx(prediction.classes[0].probability, abs=1e-5)
        assert (sample.picture_size, sample.region) == (prediction.picture_size, prediction.region)
        assert sample.frame == (32, 32)
        assert {name: (each.status, each.kept) for name, each in sample.explainers.items()} == {
            "gradcam": ("ok", True),
            "rise": ("ok", True),
        }
        assert sample.map.shape == (32, 32)
        thumbnail = Image.open(io.BytesIO(sample.thumbnail_jpeg))
        assert thumbnail.size == (sample.picture_size or (32, 32))


def test_pages_hold_all_samples_once(client, sent):
    token, found = "", []
    while True:
        page = client.list_samples(order="least_probable_first", page_size=4, page_token=token, with_total_count=True)
        assert page.total_count == len(sent)
        found += page.samples
        token = page.next_page_token
        if not token:
            break
    assert len({each.id for each in found}) == len(sent)
    probabilities = [each.classes[0].probability for each in found]
    assert probabilities == sorted(probabilities)


def test_scores_order_and_filter(client, sent):
    worst = client.list_samples(order="worst_score_first", score_of=("rise", SRG)).samples
    scores = [each.score for each in worst]
    assert scores == sorted(scores)
    assert len(scores) == len(sent)
    above = client.list_samples(SampleFilter(score=ScoreRange("rise", SRG, scores[2]))).samples
    assert sorted(each.score for each in above) == scores[2:]


def test_a_sample_has_its_maps_scores_and_curves(client, sent):
    for prediction in sent[:2]:
        sample = client.sample(prediction.request_id)
        assert sample.summary.thumbnail_jpeg
        names = list(sample.explanations)
        assert names[:2] == ["gradcam", "rise"]
        assert all(name.startswith("control/") == each.is_control for name, each in sample.explanations.items())
        rise = sample.explanations["rise"]
        assert rise.withheld == ""
        assert rise.maps[0].values.shape == (32, 32)
        assert rise.maps[0].class_id == prediction.classes[0].class_id
        assert rise.parameters["masks"] > 0
        insertion, deletion = rise.curves["insertion"], rise.curves["deletion"]
        assert rise.scores[SRG].value == pytest.approx(insertion.area - deletion.area, abs=2e-3)
        assert rise.scores["faithfulness/deletion_auc"].value == pytest.approx(deletion.area, abs=2e-3)
        assert deletion.probabilities[0] == pytest.approx(prediction.classes[0].probability, abs=1e-3)
        assert rise.scores[SRG].is_current
        assert rise.scores[SRG].parameters == {"steps": 28, "fill": "mean_colour"}
    only = client.sample(sent[1].request_id, explainers="gradcam", encoding="png")
    assert list(only.explanations) == ["gradcam"]
    np.testing.assert_allclose(
        only.explanations["gradcam"].maps[0].values,
        client.sample(sent[1].request_id).explanations["gradcam"].maps[0].values,
        atol=float(np.ptp(only.explanations["gradcam"].maps[0].values)) / 254,
    )


def test_what_the_model_saw_is_predicted_again_as_it_was(client, sent):
    """The pixels come back as they were, and so does the prediction; of a model input, but for its rounding."""
    info = client.model_info()
    for prediction, tolerance in ((sent[0], 0.2), (sent[1], 1e-5)):
        sample = client.sample(prediction.request_id)
        again = client.predict(sample.model_input(info.input))
        if tolerance < 0.1:
            assert again.classes[0].probability == pytest.approx(prediction.classes[0].probability, abs=tolerance)
        assert sample.explanations["gradcam"].in_frame().overlay(sample.picture).size == (32, 32)


def test_a_step_of_the_curve_is_what_the_model_said(client, sent):
    """The picture at a step, made from the answer alone, has the probability that the curve has."""
    info, prediction = client.model_info().input, sent[2]
    sample = client.sample(prediction.request_id)
    image = sample.model_input(info)
    for name in ("gradcam", "control/random"):
        explanation = sample.explanations[name]
        for curve, step in ((explanation.curves["deletion"], 5), (explanation.curves["insertion"], 9)):
            shown = curve.shown(explanation.maps[0].values, step)
            colour = np.array(info.mean_colour, np.float32)[:, np.newaxis, np.newaxis]
            mean, std = (np.array(each, np.float32)[:, np.newaxis, np.newaxis] for each in (info.mean, info.std))
            covered = np.where(shown, image, (colour - mean) / std).astype(np.float32)
            classes = {each.class_id: each.probability for each in client.predict(covered).classes}
            assert classes[explanation.maps[0].class_id] == pytest.approx(curve.probabilities[step], abs=2e-3)


def test_truth_shows_at_once_and_then_its_scores(client, sent):
    with contextlib.closing(client.watch_samples(SampleFilter(request_id=sent[3].request_id))) as watching:
        assert next(watching).events == ()
        wrong = "class 0" if sent[3].classes[0].class_id else "class 1"
        label = client.model_info().labels[int(wrong[-1])]
        client.report_ground_truth(
            sent[3].request_id, label, objects=[GroundTruthObject(box=(20, 5, 40, 30), label=label)]
        )
        kinds = set()
        while "truth_applied" not in kinds:
            events = next(watching)
            kinds |= {kind for each in events.events for kind in each.kinds}
        assert "labelled" in kinds
        summary = events.events[-1].sample
    assert summary.outcome_kinds == {"false_positive", "false_negative"}
    assert summary.truth.labels == (label,)
    wrong_ones = client.list_samples(SampleFilter(outcomes=["false_positive"])).samples
    assert [each.request_id for each in wrong_ones] == [sent[3].request_id]
    truth = client.sample(sent[3].request_id).summary.truth
    assert truth.objects[0].box == (20, 5, 40, 30)
    cell = client.quality().confusion[0]
    assert (cell.true_label, cell.predicted_label, cell.count) == (label, sent[3].classes[0].label, 1)


def test_quality_is_what_the_scores_say(client, sent):
    until(lambda: all(each.state == "scored" for each in client.iter_samples()))
    quality, info = client.quality(), client.model_info()
    samples = [client.sample(each.request_id) for each in client.iter_samples()]
    for name in ("gradcam", "rise", "control/blob"):
        of_samples = [each.explanations[name].scores for each in samples]
        scores = [each[SRG].value for each in of_samples if SRG in each]
        measured = quality.explainers[name]
        found = measured.quality[SRG]
        assert (found.sample_count, found.mean) == (len(scores), pytest.approx(np.mean(scores)))
        of_classes = [each.measure.sample_count for each in measured.classes if each.measure.metric == SRG]
        assert sum(of_classes) == len(scores)
    assert quality.weights[SRG] == 1
    assert set(quality.evaluator.metrics) == set(info.evaluator.metrics)
    history = client.quality_history(bins=5)
    points = history.scores["rise", SRG]
    assert sum(each.sample_count for each in points) == quality.explainers["rise"].quality[SRG].sample_count
    assert history.current.sample_count == len(samples)
    assert sum(history.current.classes.values()) == len(samples)
    maps = client.class_maps("rise")
    assert sum(each.sample_count for each in maps) == len(samples)


def test_new_samples_are_watched(client, sent):
    seen, stop = [], threading.Event()

    def watch():
        with contextlib.closing(client.watch_samples(with_thumbnails=True)) as watching:
            for events in watching:
                seen.append(events)
                if stop.is_set():
                    return

    thread = threading.Thread(target=watch)
    thread.start()
    until(lambda: seen)
    new = client.predict(picture(77)).request_id

    def kinds():
        return {kind for each in seen for one in each.events if one.sample.request_id == new for kind in one.kinds}

    until(lambda: kinds() >= {"new", "measured"})
    assert not any(each.lagged for each in seen)
    stop.set()
    client.predict(picture(78))
    thread.join(SECONDS)
    assert not thread.is_alive()


def test_with_coroutines_too(server, sent):
    async def ask():
        async with AsyncClient(server.grpc) as client:
            first = await client.list_samples(page_size=2, with_total_count=True)
            everything = [each.id async for each in client.iter_samples(SampleFilter(any_model_version=True))]
            sample = await client.sample(sent[0].request_id)
            quality = await client.quality()
            history = await client.quality_history(bins=2)
            maps = await client.class_maps(["gradcam", "rise"], max_samples=2)
            async with contextlib.aclosing(client.watch_samples()) as watching:
                started = await anext(watching)
                prediction = await client.predict(picture(99))
                async for events in watching:
                    if any(each.sample.request_id == prediction.request_id for each in events.events):
                        break
            with pytest.raises(NotFoundError):
                await client.sample("none", 3)
            return first, everything, sample, quality, history, maps, started

    first, everything, sample, quality, history, maps, started = asyncio.run(ask())
    assert len(first.samples) == 2
    assert first.total_count == len(everything)
    assert sample.summary.request_id == sent[0].request_id
    assert "rise" in quality.explainers
    assert history.bin_count == 2
    assert {each.explainer for each in maps} == {"gradcam", "rise"}
    assert started.events == ()


LIST, HISTORY = qpb.ListSamplesRequest, qpb.GetQualityHistoryRequest
NO_METRIC = {"explainer": "rise", "metric": "x"}
AT_ONCE = {"seconds": 9}
WRONG = [
    ("ListSamples", LIST(filter={"predicted_class_ids": [1, 5]}), "filter.predicted_class_ids[1]"),
    ("ListSamples", LIST(filter={"outcomes": [99]}), "filter.outcomes"),
    ("ListSamples", LIST(filter={"map_explainer": "nothing"}), "filter.map_explainer"),
    ("ListSamples", LIST(filter={"min_probability": float("nan")}), "filter.min_probability"),
    ("ListSamples", LIST(filter={"score": NO_METRIC}), "filter.score.metric"),
    ("ListSamples", LIST(filter={"start_time": {"nanos": -1}}), "filter.start_time"),
    ("ListSamples", LIST(order=qpb.SAMPLE_ORDER_BEST_SCORE_FIRST), "order_explainer"),
    ("ListSamples", LIST(page_size=201), "page_size"),
    ("ListSamples", LIST(page_token="?"), "page_token"),
    ("ListSamples", LIST(with_map_of="nothing"), "with_map_of"),
    ("GetSample", qpb.GetSampleRequest(), "request_id"),
    ("GetSample", qpb.GetSampleRequest(request_id="a", encoding=9), "encoding"),
    ("GetQualityHistory", HISTORY(bin_count=501), "bin_count"),
    ("GetQualityHistory", HISTORY(metrics=["x"]), "metrics[0]"),
    ("GetQualityHistory", HISTORY(start_time=AT_ONCE, end_time=AT_ONCE), "start_time"),
    ("GetQualityHistory", HISTORY(reference_end_time=AT_ONCE), "reference_start_time"),
    ("GetClassMaps", qpb.GetClassMapsRequest(class_ids=[7]), "class_ids[0]"),
    ("GetClassMaps", qpb.GetClassMapsRequest(max_sample_count=1001), "max_sample_count"),
]


@pytest.mark.parametrize(("method", "request_", "field"), WRONG, ids=lambda each: each if isinstance(each, str) else "")
def test_what_is_wrong_is_named(server, read_refusal, method, request_, field):
    with grpc.insecure_channel(server.grpc) as channel, pytest.raises(grpc.RpcError) as caught:
        getattr(qpb_grpc.QualityServiceStub(channel), method)(request_, timeout=SECONDS)
    refusal = read_refusal(caught.value)
    assert refusal.code == "INVALID_ARGUMENT"
    assert refusal.fields == (field,)


def test_another_model_is_not_found(server, read_refusal):
    with grpc.insecure_channel(server.grpc) as channel, pytest.raises(grpc.RpcError) as caught:
        qpb_grpc.QualityServiceStub(channel).GetQuality(qpb.GetQualityRequest(model="other"), timeout=SECONDS)
    assert read_refusal(caught.value).code == "NOT_FOUND"


def test_watchers_are_bounded_and_end_with_the_server(start_misbehaving):
    """One more than there may be is refused; those that are there end without an error when the server does."""
    with (
        start_misbehaving(*SETTINGS, "evaluator.store=sqlite://") as running,
        grpc.insecure_channel(running.grpc) as channel,
        Client(running.grpc) as client,
    ):
        stub = qpb_grpc.QualityServiceStub(channel)
        watching = [stub.WatchSamples(qpb.WatchSamplesRequest()) for _ in range(64)]
        assert all(not next(each).events for each in watching)
        with pytest.raises(OverloadedError, match="64 callers watch"):
            next(client.watch_samples(timeout=1))
        watching.pop().cancel()
        until(lambda: _watches(client))
        began = time.monotonic()
        assert running.terminate() == 0
        assert time.monotonic() - began < SECONDS / 4
        for each in watching:
            assert list(each) == []
            assert each.code() == grpc.StatusCode.OK


def _watches(client):
    try:
        with contextlib.closing(client.watch_samples(timeout=5)) as watching:
            return next(watching)
    except OverloadedError:
        return None


def test_arguments_are_checked_before_anything_is_sent(client):
    for call in (
        lambda: client.list_samples(order="best"),
        lambda: client.list_samples(page_size=0),
        lambda: client.list_samples(order="worst_score_first"),
        lambda: client.list_samples(score_of=("rise", SRG)),
        lambda: client.list_samples(SampleFilter(outcomes=["right"])),
        lambda: client.list_samples(SampleFilter(start="yesterday")),
        lambda: client.quality_history(bins=0),
        lambda: client.watch_samples(SampleFilter(states=["x"])),
    ):
        with pytest.raises(ValueError, match=r"must be|goes with|score_of"):
            call()
    with pytest.raises(InvalidRequestError):
        client.list_samples(page_token="none")
