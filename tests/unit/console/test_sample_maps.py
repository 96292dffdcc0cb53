"""The maps of a sample: of the class that was chosen alone, asked for where there are none, never another's scores."""

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import pytest

from xai_client import (
    ClassScore,
    Explained,
    Explanation,
    Predicted,
    Prediction,
    Progress,
    SaliencyMap,
    Sample,
    SampleSummary,
    UnavailableError,
)
from xai_client.samples import SampleExplanation, SampleScore
from xai_console import sample_maps
from xai_console.sample_maps import SampleMaps
from xai_console.sample_picture import Shown
from xai_console.words import Words

CAT, DOG, EEL = range(3)
LABELS = "cat", "dog", "eel"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
SRG = "faithfulness/srg"


def saliency(class_id, status="ok", *, kept=True):
    values = np.full((2, 2), float(class_id), np.float32) if kept and status == "ok" else None
    return SaliencyMap(class_id, LABELS[class_id], status, values, None)


def score(value):
    return SampleScore(SRG, value, "ok" if value is not None else "error", True, value, NOW, 1, {}, True)


def kept(*maps, name="gradcam", scored=0.25):
    scores = {} if scored is None else {SRG: score(scored)}
    return SampleExplanation(name, False, maps, True, {}, None, 3, scores, {})


def sample(*explanations, picture=b"png"):
    classes = (ClassScore(CAT, "cat", 0.9, 2.2), ClassScore(DOG, "dog", 0.1, 0.0))
    summary = SampleSummary(
        "r", 0, NOW, "scored", "v", classes, (CAT,), None, (), None, None, None, None, (2, 2), False
    )
    made = Sample(summary, picture, {each.explainer: each for each in explanations}, "1")
    object.__setattr__(made, "model_input", lambda _: np.zeros((1, 2, 2), np.float32))
    return made


def explained(class_id, *, name="gradcam", final=True):
    made = Explanation(
        name, name, "complete" if final else "partial", "", (saliency(class_id),), {}, None, 7, False, 0.5, None, None
    )
    return Explained("r", made)


class Tile:
    """What a tile was told last, in the place of one in a browser."""

    def __init__(self, page, gallery, name, *_, of):
        self.name, self.said, self.lines, self.badge = name, None, (), None

    def show(self, explanation, target, facts=None, badge=None):
        (shown,) = (each for each in explanation.maps if each.class_id == target)
        self.said = shown.withheld or f"map of {shown.label}"
        self.lines, self.badge = facts, badge and badge.text

    def wait(self):
        self.said, self.lines, self.badge = "waits", (), None

    def lack(self, why):
        self.said, self.lines, self.badge = why, (), None

    def progress(self, event):
        self.said = f"{event.passes} passes"

    def forget(self):
        pass


class Source:
    """A server that answers when a test says so: `events` is what the newest call yields, up to None."""

    def __init__(self):
        self.asked, self.open, self.events, self.counts = [], 0, asyncio.Queue(), []

    async def stream(self, picture, explain, *, top_k, ood):
        events = self.events = asyncio.Queue()
        self.asked.append([(each.explainer, *each.to_message("").targets.class_ids) for each in explain])
        self.counts.append(top_k)
        self.open += 1
        try:
            while (event := await events.get()) is not None:
                if isinstance(event, Exception):
                    raise event
                yield event
        finally:
            self.open -= 1


@pytest.fixture
def make(monkeypatch):
    """Makes the maps of a sample, in no browser; what the viewer is notified of is in `notes`."""

    def make(shown, *, target=CAT, names=("gradcam",), run="", roles=None, cost=1):
        explainer = SimpleNamespace(available=True, cost=SimpleNamespace(passes=cost))
        evaluator = SimpleNamespace(metrics={SRG: None})
        info = SimpleNamespace(
            explainers=dict.fromkeys(names, explainer),
            evaluator=evaluator,
            run=run,
            input=None,
            roles=roles,
            class_count=len(LABELS),
        )
        console = SimpleNamespace(credentials="session")
        page = SimpleNamespace(say=Words("en"), source=Source(), state={}, console=console)
        made = SampleMaps(
            page, info, None, shown, Shown(None, (2, 2), (0, 0, 2, 2)), target, lambda *said: told.append(said)
        )
        made.hang(names)
        return made, page.source

    notes, told = [], []
    client = SimpleNamespace(client=None)
    notify = SimpleNamespace(context=client, notify=lambda text, **_: notes.append(text))
    tasks = SimpleNamespace(create=lambda work, context: asyncio.ensure_future(work))
    monkeypatch.setattr(sample_maps, "Tile", Tile)
    monkeypatch.setattr(sample_maps, "ui", notify)
    monkeypatch.setattr(sample_maps, "background_tasks", tasks)
    monkeypatch.setattr(sample_maps, "report", lambda error, say: notes.append(error.message))
    make.notes, make.told = notes, told
    return make


async def settle():
    for _ in range(10):
        await asyncio.sleep(0)


def tile(made, name="gradcam"):
    return made._tiles[name]


async def test_a_kept_map_is_shown_with_its_scores_and_nobody_is_asked(make):
    made, source = make(sample(kept(saliency(CAT))))
    await settle()
    assert (tile(made).said, tile(made).badge) == ("map of cat", "0.25 ↑")
    assert source.asked == []


async def test_scores_are_of_the_first_map_alone(make):
    made, _ = make(sample(kept(saliency(CAT), saliency(DOG))))
    made.choose(DOG)
    assert (tile(made).said, tile(made).badge) == ("map of dog", "not measured")
    assert tile(made).lines == ["Passes: 3"]
    # And stay so when scores come.
    made.refresh(sample(kept(saliency(CAT), saliency(DOG), scored=0.5)))
    assert (tile(made).said, tile(made).badge) == ("map of dog", "not measured")
    made.choose(CAT)
    assert tile(made).badge == "0.25 → 0.5 ↑"


async def test_what_was_not_measured_is_no_zero(make):
    made, _ = make(sample(kept(saliency(CAT), scored=None)))
    assert tile(made).badge == "not measured"
    made.refresh(sample(kept(saliency(CAT), scored=0.0)))
    assert tile(made).badge == "0 ↑"


async def test_any_class_is_explained_now_and_only_once(make):
    made, source = make(sample(kept(saliency(CAT))))
    made.choose(EEL)
    await settle()
    assert source.asked == [[("gradcam", EEL)]]
    assert (tile(made).said, tile(made).badge) == ("waits", None)
    made.choose(EEL)  # it is on its way
    source.events.put_nowait(Progress("r", "gradcam", 5, 9, None, None))
    await settle()
    assert tile(made).said == "5 passes"
    for event in (predicted(0.9, 0.1, 0.0), explained(EEL), None):
        source.events.put_nowait(event)
    await settle()
    assert (tile(made).said, tile(made).badge) == ("map of eel", "not measured")
    for class_id, said in ((CAT, "map of cat"), (EEL, "map of eel")):
        made.choose(class_id)
        await settle()
        assert tile(made).said == said
    assert len(source.asked) == 1


UNKNOWN = "How probable this class was is not known: it is not among the most probable ones, which are kept."


def predicted(*probabilities, version="v"):
    classes = tuple(ClassScore(each, LABELS[each], value, 0.0) for each, value in enumerate(probabilities))
    return Predicted("r", Prediction("r", version, classes, None, None, {}, None, None))


async def test_how_probable_a_class_is_comes_with_its_map(make):
    made, source = make(sample(kept(saliency(CAT))))
    assert make.told == [(CAT, "Probability: 90.0 %")]
    made.choose(EEL)
    assert make.told[-1] == (EEL, "Computing…")
    await settle()
    source.events.put_nowait(predicted(0.89, 0.1, 0.004))
    await settle()
    assert make.told[-1] == (EEL, "Probability: 0.4 %")
    for event in (explained(EEL), None):
        source.events.put_nowait(event)
    await settle()
    made.choose(CAT)
    assert make.told[-1] == (CAT, "Probability: 90.0 %")  # what the sample was predicted with
    made.choose(DOG)
    await settle()
    made.choose(EEL)
    await settle()
    assert make.told[-1] == (EEL, "Probability: 0.4 %")
    assert source.counts == [3, 1]


@pytest.mark.parametrize("answer", [predicted(0.8, 0.1, 0.1, version="another"), UnavailableError("away"), None])
async def test_how_probable_a_class_is_stays_unknown_without_an_answer_of_the_same_model(make, answer):
    made, source = make(sample(kept(saliency(CAT))))
    made.choose(EEL)
    await settle()
    for event in (answer, None):
        source.events.put_nowait(event)
    await settle()
    assert make.told[-1] == (EEL, UNKNOWN)


async def test_of_a_kept_map_alone_the_probability_is_asked_for(make):
    made, source = make(sample(kept(saliency(CAT), saliency(EEL))))
    made.choose(EEL)
    await settle()
    assert source.asked == [[]]
    for event in (predicted(0.9, 0.05, 0.05), None):
        source.events.put_nowait(event)
    await settle()
    assert make.told[-1] == (EEL, "Probability: 5.0 %")
    assert tile(made).said == "map of eel"


async def test_a_map_that_comes_late_is_not_shown_as_that_of_the_class_chosen_since(make):
    made, source = make(sample(kept(saliency(CAT))))
    made.choose(EEL)
    await settle()
    source.events.put_nowait(explained(EEL, final=False))
    made.choose(DOG)
    await settle()
    assert tile(made).said == "waits"
    assert [each[0][1] for each in source.asked] == [EEL, DOG]
    assert source.open == 1  # nobody waits for the other


async def test_a_call_that_fails_says_so_and_leaves_no_map_of_another_class(make):
    made, source = make(sample(kept(saliency(CAT))))
    made.choose(EEL)
    await settle()
    source.events.put_nowait(UnavailableError("away"))
    await settle()
    assert make.notes == ["away"]
    assert tile(made).said == "Stopped before there was a map"
    made.choose(EEL)  # once more
    await settle()
    assert len(source.asked) == 2


@pytest.mark.parametrize(
    ("picture", "run", "roles", "why", "asked"),
    [
        (b"", "", None, "The picture is not kept, so it cannot be explained anew", []),
        (b"png", "R", None, "The run has no map of this", []),
        (b"png", "", ("read",), "This needs the role predict and the role explain, which your token does not", []),
        (b"png", "", ("predict", "read"), "This needs the role explain, which your token does not have", [[]]),
    ],
)
async def test_where_a_class_cannot_be_explained_it_is_said(make, picture, run, roles, why, asked):
    made, source = make(sample(kept(saliency(CAT)), picture=picture), run=run, roles=roles)
    made.choose(EEL)
    await settle()
    assert source.asked == asked  # how probable it is can be asked all the same
    assert make.told[-1] == (EEL, "Computing…" if asked else UNKNOWN)
    assert tile(made).said == "Not explained for this class"
    (note,) = make.notes
    assert note.startswith(why)
    made.choose(CAT)
    assert tile(made).said == "map of cat"


@pytest.mark.parametrize(("target", "cost", "asked"), [(CAT, 2, 1), (CAT, 3, 0), (EEL, 3, 1)])
async def test_what_is_costly_is_asked_for_only_where_the_viewer_chose_a_class(make, target, cost, asked):
    made, source = make(sample(), target=target, cost=cost)
    await settle()
    assert len(source.asked) == asked
    assert tile(made).said == ("waits" if asked else "Not explained for this class")
    assert make.notes == []


async def test_a_sample_that_has_been_measured_shows_its_own_map(make):
    made, source = make(sample())
    await settle()
    for event in (explained(CAT), None):
        source.events.put_nowait(event)
    await settle()
    assert tile(made).badge == "not measured"
    assert made.refresh(sample(kept(saliency(CAT))))
    assert tile(made).badge == "0.25 ↑"
    assert not made.refresh(sample(kept(saliency(CAT)), kept(saliency(CAT), name="rise")))


async def test_values_that_are_no_longer_kept_are_made_again_once_they_are_wanted(make):
    made, source = make(sample(kept(saliency(CAT, kept=False))))
    await settle()
    assert (tile(made).said, source.asked) == ("not_kept", [])
    made.choose(CAT)
    await settle()
    for event in (explained(CAT), None):
        source.events.put_nowait(event)
    await settle()
    assert tile(made).said == "map of cat"


async def test_a_withheld_map_gives_its_reason_and_is_not_asked_for_again(make):
    made, source = make(sample(kept(saliency(CAT, "zero_gradient"), scored=None)))
    made.choose(CAT)
    await settle()
    assert (tile(made).said, source.asked) == ("zero_gradient", [])
