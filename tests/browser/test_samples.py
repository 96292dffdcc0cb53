"""Samples, truth, review and figures: what pages show is what the SDK says, and what viewers say arrives."""

import io
import json
import re
import zipfile
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from PIL import Image

from xai_client import Explain, SampleFilter
from xai_console.figures import number, percent
from xai_console.sample_scores import metric_name
from xai_console.words import Words
from xai_sidecar.zoo.sample import sample_picture

ROWS = COLUMNS = 224
WIDE, TALL = (451, 300), (200, 400)


@pytest.fixture(scope="module")
def sampled(client, eventually):
    """Ids of samples that have been measured, by name."""
    with Image.open(sample_picture("coffee")) as coffee:
        tall = coffee.convert("RGB").crop((150, 0, 350, 400))
    pictures = {
        "wide": sample_picture("chelsea"),
        "tall": tall,
        "square": sample_picture("astronaut"),
        "rocket": sample_picture("rocket"),
        "motorcycle": sample_picture("motorcycle_left"),
        "coffee": sample_picture("coffee"),
    }
    ids = {name: client.predict(picture, request_id=f"browser-{name}").request_id for name, picture in pictures.items()}

    def scored():  # those that are just being written are not listed yet
        states = {each.request_id: each.state for each in client.list_samples(page_size=200).samples}
        return all(states.get(each) == "scored" for each in ids.values())

    eventually(scored, seconds=180, pause=0.2)
    return ids


def keys(page):
    return [each.get_attribute("data-key") for each in page.locator(".samples li").all()]


def test_live_lists_what_the_sdk_lists(console, open_page, client, sampled, axe, at_night):
    with open_page(console + "/?order=least_probable_first&maps=gradcam") as page:
        page.locator(".samples canvas[data-drawn]").first.wait_for()
        listed = client.list_samples(order="least_probable_first", with_total_count=True)
        assert keys(page) == [each.id for each in listed.samples]
        page.get_by_text(f"{listed.total_count:,} samples").wait_for()
        for card, each in zip(page.locator(".sample").all(), listed.samples, strict=True):
            assert card.locator(".sample-title").inner_text() == each.classes[0].label
            assert card.locator(".sample-head .number").inner_text() == percent(each.classes[0].probability)
        at_night(page)
        assert axe(page) == []


def test_filters_choose_stand_in_the_url_and_are_taken_from_it(console, open_page, client, sampled):
    wanted = {each.id for each in client.list_samples(SampleFilter(outcomes=["unknown"], min_probability=0.5)).samples}
    assert 0 < len(wanted) < len(sampled) + 20
    with open_page(console + "/?pmin=0.5") as page:
        page.locator(".samples li").first.wait_for()
        page.locator("[data-outcome=unknown]").click()
        page.wait_for_url(re.compile("outcome=unknown"))
        page.wait_for_function("count => document.querySelectorAll('.samples li').length == count", arg=len(wanted))
        assert set(keys(page)) == wanted
        page.reload()
        page.locator("[data-outcome=unknown][aria-pressed=true]").wait_for()
        page.locator(".samples li").first.wait_for()
        assert set(keys(page)) == wanted


def test_time_is_chosen_and_shown_as_the_viewer_has_it(console, open_page, client, sampled):
    zone = "America/New_York"
    first, *later = client.list_samples(order="oldest_first").samples
    start = later[0].time.isoformat().replace("+00:00", "Z")
    with open_page(f"{console}/?order=oldest_first&start={start}", zone=zone) as page:
        page.locator(".samples li").first.wait_for()
        assert keys(page) == [each.id for each in later][: len(keys(page))]
        here = later[0].time.astimezone(ZoneInfo(zone))
        page.get_by_text(f"in the time of {zone}").wait_for()
        assert page.locator("[data-time=start]").input_value() == f"{here:%Y-%m-%dT%H:%M:%S}".removesuffix(":00")
        assert f"{here:%H:%M}" in page.locator(".sample-line").first.inner_text()
        page.locator("[data-time=start]").fill("2020-07-01T08:00")
        page.locator(f'.samples li[data-key="{first.id}"]').wait_for()
        page.locator("[data-time=end]").fill("2020-07-02T08:00")
        page.get_by_text("No sample yet that fits").wait_for()
        assert {"start=2020-07-01T12:00Z", "end=2020-07-02T12:00Z"} <= set(page.url.partition("?")[2].split("&"))
        page.goto(f"{console}/?hours=0.005&start=never")
        page.get_by_text("0.005 h", exact=True).wait_for()


def test_a_new_sample_comes_by_itself(console, open_page, client, photo, sampled):
    with open_page(console + "/") as page:
        page.locator(".samples li").first.wait_for()
        asked = client.predict(photo)
        page.locator(f'.samples li[data-key="{asked.request_id}/0"]').wait_for()
        assert keys(page)[0] == f"{asked.request_id}/0"
        # Its map comes when it has been measured; what was there before stays, in its order.
        page.locator(f'.samples li[data-key="{asked.request_id}/0"] .sample-line').filter(
            has_not_text="being measured"
        ).wait_for()
        page.locator(f'.samples li[data-key="{asked.request_id}/0"] canvas[data-drawn]').wait_for()
        came, listed = keys(page), client.list_samples(with_total_count=True)
        assert came == [each.id for each in listed.samples][: len(came)]
        page.get_by_text(f"{listed.total_count:,} samples").wait_for()


def test_a_sample_is_shown_with_its_maps_and_scores(console, open_page, client, sampled, drawn_values, axe, at_night):
    sample = client.sample(sampled["wide"])
    leading = metric_name(Words("en"), next(iter(client.model_info().evaluator.metrics)))
    with open_page(f"{console}/sample?request={sampled['wide']}") as page:
        page.get_by_text(f"In the corner of each map: {leading}").wait_for()
        for name, made in sample.explanations.items():
            if made.is_control:
                continue
            tile = page.locator(f'[data-tile="{name}"]')
            np.testing.assert_array_equal(drawn_values(tile.locator("figure"), ROWS, COLUMNS), made.maps[0].values)
            lines = dict(line.inner_text().split("\n") for line in tile.locator(".tile-fact").all())
            assert len(lines) == len(made.scores) - 1
            badge = tile.locator(".map-badge")
            lines[leading] = badge.inner_text()
            assert badge.get_attribute("aria-label") == f"{leading}: {lines[leading]}"
            for metric, score in made.scores.items():
                shown = lines[metric_name(Words("en"), metric)]
                if score.value is not None:
                    assert shown.startswith(number(score.value))
                else:
                    assert shown == "needs objects in the truth"
        rows = [row.inner_text().split("\n") for row in page.locator(".class").all()]
        assert rows == [[each.label, percent(each.probability)] for each in sample.summary.classes]
        page.wait_for_load_state("networkidle")
        assert axe(page) == []
        at_night(page)
        assert axe(page) == []


def test_what_a_page_shows_is_painted_before_any_script_runs(console, browser, sampled, client, eventually):
    sample = client.sample(sampled["wide"])
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()

    def painted(url):
        page.goto(url)
        return page.locator("#preview").count()  # none where the content took so long that it follows

    eventually(lambda: painted(f"{console}/sample?request={sampled['wide']}"))
    shown = page.locator("#preview .tile-name").all_inner_texts()
    assert shown == [name for name, made in sample.explanations.items() if not made.is_control]
    rows = [row.inner_text().split("\n") for row in page.locator("#preview .class").all()]
    assert rows == [[each.label, percent(each.probability)] for each in sample.summary.classes]
    assert drawn_pictures(page) == 1 + len(shown)
    eventually(lambda: painted(console + "/?order=least_probable_first"))
    listed = client.list_samples(order="least_probable_first").samples[:24]
    titles = page.locator("#preview .sample-title").all_inner_texts()
    assert titles == [each.classes[0].label for each in listed]
    assert drawn_pictures(page) == len(listed)
    context.close()


def drawn_pictures(page):
    """How many pictures of a page have come."""
    sizes = [page.request.get(each.evaluate("image => image.src")) for each in page.locator("#preview img").all()]
    return sum(each.ok and each.headers["content-type"] == "image/jpeg" for each in sizes)


def test_the_page_itself_takes_the_place_of_what_was_painted_first(console, open_page, sampled):
    with open_page(f"{console}/sample?request={sampled['wide']}") as page:
        page.locator("[data-tile=gradcam] figure[data-drawn]").wait_for()
        assert page.locator("#preview").count() == 0
        assert page.locator("h1").count() == 1


def test_a_class_is_found_by_typing_among_names_that_come_when_they_are_asked_for(console, open_page, client, sampled):
    label = client.sample(sampled["rocket"]).summary.classes[0].label
    with open_page(console + "/") as page:
        page.locator(".samples li").first.wait_for()
        assert "goldfish" not in page.request.get(console + "/").text()
        page.get_by_role("combobox", name="Predicted class").click()
        page.get_by_role("option", name="goldfish", exact=True).wait_for()
        page.keyboard.type(label[:-1].upper())
        page.get_by_role("option", name=label, exact=True).click()
        page.wait_for_url(re.compile(r"predicted=\d+"))
        page.wait_for_function(
            "label => [...document.querySelectorAll('.sample-title')].every((each) => each.textContent === label)",
            arg=label,
        )
        page.reload()
        page.locator(".q-chip").filter(has_text=label).wait_for()


def test_what_few_want_is_there_once_it_is_asked_for(console, open_page, sampled):
    with open_page(console + "/") as page:
        assert page.get_by_label("Probability to").count() == 0
        for shown in (True, False, True):
            page.get_by_role("button", name="More filters").click()
            page.get_by_label("Probability to").wait_for(state="visible" if shown else "hidden")
    with open_page(console + "/?pmax=0.9") as page:
        page.get_by_label("Probability to").wait_for()
    with open_page(f"{console}/sample?request={sampled['wide']}") as page:
        for _ in range(3):  # opened, closed, opened, before the server has said anything of the first
            page.get_by_role("button", name="More").click()
        menu = page.locator(".looks-menu")
        menu.get_by_text("Show what the model saw").click()
        page.wait_for_url(re.compile("frame=1"))
        assert menu.get_by_role("checkbox").is_checked()
        box = menu.bounding_box()
        assert box["y"] + box["height"] <= 900


def test_controls_are_shown_once_somebody_wants_to_see_them(console, open_page, client, sampled, drawn_values):
    made = {name: each for name, each in client.sample(sampled["wide"]).explanations.items() if each.is_control}
    with open_page(f"{console}/sample?request={sampled['wide']}") as page:
        drawn_values(page.locator("[data-tile=gradcam] figure"), ROWS, COLUMNS)
        assert page.locator('[data-tile^="control/"]').count() == 0
        for _ in range(3):  # opened, closed, opened, before the server has said anything of the first
            page.get_by_text("Controls: maps that know nothing of the model").click()
        page.locator('[data-tile="control/edges"]').wait_for()
        tiles = page.locator('[data-tile^="control/"]')
        assert [each.get_attribute("data-tile") for each in tiles.all()] == list(made)
        for name, each in made.items():
            figure = page.locator(f'[data-tile="{name}"] figure')
            np.testing.assert_array_equal(drawn_values(figure, ROWS, COLUMNS), each.maps[0].values)


def test_a_class_that_was_not_explained_is_explained_now(console, open_page, client, sampled, drawn_values):
    sample = client.sample(sampled["wide"])
    first, second, *_ = sample.summary.classes
    with open_page(f"{console}/sample?request={sampled['wide']}") as page:
        figure = page.locator("[data-tile=gradcam] figure")
        before, drawn = drawn_values(figure, ROWS, COLUMNS), figure.get_attribute("data-drawn")
        said = page.locator("[data-tile=gradcam] .tile-lines").inner_text()
        page.locator(f'[data-class="{second.class_id}"]').click()
        page.wait_for_url(re.compile(f"class={second.class_id}"))
        page.locator(f'[data-tile=gradcam] canvas[aria-label="gradcam: {second.label}"]').wait_for()
        page.wait_for_function(
            "old => document.querySelector('[data-tile=gradcam] figure').dataset.drawn != old",
            arg=drawn,
        )
        after = drawn_values(figure, ROWS, COLUMNS)
        assert after.shape == before.shape
        assert not np.allclose(after, before)
        # Both are there now: what was measured of the first shows again, and nobody is asked for either.
        ended = page.locator("[data-tile=gradcam] .tile-lines").filter(has_text=re.compile(r"· [\d.]+ s"))
        ended.wait_for()
        now = figure.get_attribute("data-drawn"), ended.inner_text()
        for class_id, (url, lines) in ((first.class_id, (drawn, said)), (second.class_id, now)):
            page.locator(f'[data-class="{class_id}"]').click()
            page.locator(f'[data-class="{class_id}"][aria-pressed=true]').wait_for()
            page.locator(f'[data-tile=gradcam] figure[data-drawn="{url}"]').wait_for()
            assert page.locator("[data-tile=gradcam] .tile-lines").inner_text() == lines
        # Any class of the model can be, not only the most probable ones that are listed.
        label = "goldfish"
        assert label not in {each.label for each in sample.summary.classes}
        class_id = client.model_info().labels.index(label)
        page.get_by_role("combobox", name="Another class").click()
        page.keyboard.type(label)
        page.get_by_role("option", name=label, exact=True).click()
        page.wait_for_url(re.compile(f"class={class_id}"))
        shown = map_of(page, "gradcam", label, drawn_values)
        np.testing.assert_allclose(shown, explained(client, sample, class_id, "gradcam")[0], rtol=1e-4, atol=1e-6)
        assert page.locator("[data-tile=gradcam] .map-badge").inner_text() == "not measured"
        assert page.locator(".class[aria-pressed=true]").count() == 0
        info = client.model_info()
        said = client.predict(sample.model_input(info.input), top_k=info.class_count, skip_sampling=True).classes
        (probability,) = (each.probability for each in said if each.class_id == class_id)
        page.get_by_text(f"Probability: {percent(probability)}", exact=True).wait_for()


def map_of(place, explainer, label, drawn_values):
    """The map of a class, once it is drawn."""
    figure = place.locator(f'[data-tile={explainer}] figure:has(canvas[aria-label="{explainer}: {label}"])')
    figure.wait_for()
    return drawn_values(figure, ROWS, COLUMNS)


def explained(client, sample, class_id, *explainers):
    """The maps that the SDK says there are of a class of a sample."""
    picture = sample.model_input(client.model_info().input)
    explain = [Explain(each, targets=class_id) for each in explainers]
    made = client.predict(picture, explain=explain, skip_sampling=True).explanations
    return [made[each].saliency for each in explainers]


def test_a_row_of_side_by_side_changes_to_the_class_that_is_clicked(
    console, open_page, client, sampled, drawn_values, axe, at_night
):
    listed = client.list_samples(order="least_probable_first").samples
    assert len(listed) > 5
    names = "gradcam", "gradient"
    with open_page(console + "/?order=least_probable_first&hours=24") as page:
        page.locator(".samples li").first.wait_for()
        page.get_by_role("button", name="Side by side").click()
        page.wait_for_url(re.compile(r"side-by-side\?.*order=least_probable_first"))
        rows = page.locator("[data-sample]")
        rows.nth(4).wait_for()
        assert [row.get_attribute("data-sample") for row in rows.all()] == [each.id for each in listed[:5]]
        row, other = rows.nth(0), rows.nth(1)
        for place, each in ((row, listed[0]), (other, listed[1])):
            sample = client.sample(each.request_id, each.image_index)
            for name in names:
                made = sample.explanations[name]
                shown = map_of(place, name, each.classes[0].label, drawn_values)
                np.testing.assert_array_equal(shown, made.maps[0].values)
                score = made.scores["faithfulness/srg"].value
                assert place.locator(f"[data-tile={name}] .map-badge").inner_text() == f"{number(score)} ↑"
        before = other.locator("[data-tile=gradcam] figure").get_attribute("data-drawn")
        second = listed[0].classes[1]
        sample = client.sample(listed[0].request_id, listed[0].image_index)
        row.locator(f'[data-class="{second.class_id}"]').click()
        shown = [map_of(row, name, second.label, drawn_values) for name in names]
        np.testing.assert_allclose(shown, explained(client, sample, second.class_id, *names), rtol=1e-4, atol=1e-6)
        assert other.locator("[data-tile=gradcam] figure").get_attribute("data-drawn") == before
        row.locator("[data-tile=gradcam] canvas").first.click()
        page.locator(".large").get_by_role("heading", name=f"gradcam: {second.label}").wait_for()
        page.get_by_role("button", name="Close").click()
        page.locator(".large").wait_for(state="detached")
        page.get_by_role("button", name="Map alone").click()
        page.wait_for_url(re.compile(rf"class.*={second.class_id}&.*view=map"))
        page.locator('button[aria-pressed="true"]', has_text="Map alone").wait_for()
        at_night(page)
        assert row.locator("[data-tile=gradcam] canvas").first.bounding_box()["width"] > 140
        assert axe(page) == []
        page.get_by_role("button", name="Next").click()
        page.wait_for_url(re.compile("at=5"))
        page.wait_for_function("id => document.querySelector('[data-sample]')?.dataset.sample === id", arg=listed[5].id)
        page.get_by_role("button", name="Back", exact=True).click()
        page.wait_for_function("id => document.querySelector('[data-sample]')?.dataset.sample === id", arg=listed[0].id)


def test_two_classes_are_compared(console, open_page, sampled, drawn_values):
    with open_page(f"{console}/sample?request={sampled['wide']}") as page:
        page.get_by_role("button", name="Compare").click()
        figures = page.locator("[data-contrast] figure")
        figures.nth(2).wait_for()
        one, other, difference = (drawn_values(figures.nth(place), ROWS, COLUMNS) for place in range(3))
        np.testing.assert_allclose(difference, one - other, atol=1e-6)


WATCHED = """element => {
  const note = () => {
    const value = Number(element.getAttribute("aria-valuenow"));
    if (element.values.at(-1) !== value) element.values.push(value);
  };
  element.values = [];
  note();
  const watching = new MutationObserver(note);
  watching.observe(element, { attributeFilter: ["aria-valuenow"] });
}"""
"""Has an element keep the values that it goes through."""


def test_the_curve_leads_to_the_picture_at_each_step(console, open_page, client, sampled):
    sample = client.sample(sampled["wide"])
    made = sample.explanations["gradcam"]
    curve = made.curves.get("insertion") or made.curves["deletion"]
    done = {"insertion": "uncovered", "deletion": "covered"}[curve.kind]
    original = np.asarray(sample.picture.convert("RGB"))
    with open_page(f"{console}/sample?request={sampled['wide']}&stands=gradcam") as page:
        page.locator('.steps [tabindex="0"]').focus()
        steps = page.locator(".steps")
        steps.evaluate(WATCHED)
        for key in ("ArrowRight", "ArrowLeft"):
            for _ in curve.pixel_counts:
                page.keyboard.press(key)
        values = steps.evaluate("element => element.values")
        top = len(curve.pixel_counts) - 1
        assert values[values.index(top) :] == list(range(top, -1, -1))  # the server took none of them back
        for step in range(3):
            part = percent(curve.pixel_counts[step] / curve.pixel_counts[-1])
            page.get_by_text(f"{part} {done}: {percent(curve.probabilities[step])}", exact=True).wait_for()
            address = page.locator(".masked").get_attribute("src")
            with Image.open(io.BytesIO(page.request.get(console + address).body())) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            shown = curve.shown(made.maps[0].values, step)
            np.testing.assert_array_equal(pixels[shown], original[shown])
            covered = (pixels != original).any(axis=2)[~shown]
            assert covered.mean() > 0.8 if covered.size else step == 0
            page.keyboard.press("ArrowRight")


# ------------------------------------------------------------------------------------------------ what viewers say


@pytest.mark.parametrize(("name", "size"), [("wide", WIDE), ("tall", TALL)])
def test_a_box_arrives_where_it_was_drawn(name, size, console, open_page, client, sampled, eventually):
    wanted = (0.3 * size[0], 0.25 * size[1], 0.7 * size[0], 0.8 * size[1])
    sample = client.sample(sampled[name])
    class_id = sample.summary.classes[0].class_id
    with open_page(f"{console}/sample?request={sampled[name]}", height=1400) as page:
        canvas = page.locator(".split figure canvas").first
        page.locator("figure[data-drawn=picture]").first.wait_for()
        page.get_by_role("button", name="Box").click()
        page.locator("figure.drawing").wait_for()
        box = canvas.bounding_box()
        across, down = box["width"] / size[0], box["height"] / size[1]
        page.mouse.move(box["x"] + wanted[0] * across, box["y"] + wanted[1] * down)
        page.mouse.down()
        page.mouse.move(box["x"] + wanted[2] * across, box["y"] + wanted[3] * down, steps=4)
        page.mouse.up()
        page.locator(".map-shapes .truth").first.wait_for(state="attached")
        page.locator(f'[data-truth="{class_id}"]').click()
        truth = eventually(lambda: client.sample(sampled[name]).summary.truth)
        assert truth.class_ids == (class_id,)
        (made,) = truth.objects
        np.testing.assert_allclose(made.box, wanted, atol=2 / min(across, down))
        # Its effect shows on the open page, by itself.
        page.get_by_text("scores are by it").wait_for()
        page.locator(".tag-good").first.wait_for()
        scores = client.sample(sampled[name]).explanations["gradcam"].scores
        hit = next(each for each in scores.values() if each.metric.endswith("pointing_game"))
        page.locator("[data-tile=gradcam] .tile-fact").filter(has_text="Pointing game").filter(
            has_text=number(hit.value)
        ).wait_for()


def test_a_polygon_is_closed_by_the_keyboard(console, open_page, client, sampled, eventually):
    corners = [(120.0, 100.0), (400.0, 120.0), (260.0, 420.0)]
    with open_page(f"{console}/sample?request={sampled['square']}", height=1400) as page:
        canvas = page.locator(".split figure canvas").first
        page.locator("figure[data-drawn=picture]").first.wait_for()
        page.get_by_role("button", name="Polygon").click()
        page.locator("figure.drawing").wait_for()
        box = canvas.bounding_box()
        for x, y in corners:
            page.mouse.click(box["x"] + x * box["width"] / 512, box["y"] + y * box["height"] / 512)
        canvas.focus()
        page.keyboard.press("Enter")
        page.locator(".map-shapes .truth").first.wait_for(state="attached")
        page.get_by_role("button", name="Report").click()
        truth = eventually(lambda: client.sample(sampled["square"]).summary.truth)
        np.testing.assert_allclose(truth.objects[0].polygon, corners, atol=3)
        # A label, reported by itself afterwards, loses nothing.
        page.locator("[data-truth]").first.click()
        truth = eventually(lambda: (known := client.sample(sampled["square"]).summary.truth).class_ids and known)
        np.testing.assert_allclose(truth.objects[0].polygon, corners, atol=3)


def test_review_goes_by_keyboard(console, open_page, client, sampled, eventually, axe, at_night):
    waiting = client.list_samples(SampleFilter(outcomes=["unknown"]), order="newest_first").samples
    first = waiting[0]
    with open_page(console + "/review?order=newest_first") as page:
        page.locator(".answer").first.wait_for()
        assert page.locator(".answer .class-name").first.inner_text() == first.classes[0].label
        page.keyboard.press("2")
        truth = eventually(lambda: client.sample(first.request_id, first.image_index).summary.truth)
        assert truth.class_ids == (first.classes[1].class_id,)
        page.get_by_text(re.compile("1 done")).wait_for()
        at_night(page)
        assert axe(page) == []


# ------------------------------------------------------------------------------------------------ figures and files


@pytest.fixture(scope="module")
def quality(client, sampled, eventually):
    """What the SDK says once each metric has been measured of some pictures."""
    for name in ("coffee", "motorcycle"):
        class_id = client.sample(sampled[name]).summary.classes[0].class_id
        client.report_ground_truth(sampled[name], class_ids=class_id, boxes=[(200, 100, 400, 300)])
    for name in ("coffee", "motorcycle"):
        eventually(lambda name=name: client.sample(sampled[name]).summary.truth.applied, seconds=60, pause=0.2)
    made = client.quality()
    assert min(each.sample_count for each in made.explainers["gradcam"].quality.values()) >= made.min_sample_count == 2
    return made


def composite(each, weights):
    """A composite score by hand; None where one that counts was not measured."""
    if not weights.keys() <= each.quality.keys():
        return None
    return sum(weight * each.quality[name].goodness for name, weight in weights.items()) / sum(weights.values())


def test_quality_has_the_sdks_figures_and_no_zero_for_what_was_not_measured(
    console, open_page, client, quality, axe, at_night, charted
):
    srg, pointing = quality.evaluator.metrics
    with open_page(console + "/quality") as page:
        page.locator("table.quality tbody tr").first.wait_for()
        page.get_by_text(f"auto takes {quality.auto_explainer}").wait_for()
        rows = page.locator("table.quality tbody tr")
        assert rows.count() == len(quality.explainers)
        for name, each in quality.explainers.items():
            row = page.locator(f'tr[data-explainer="{name}"]')
            assert row.locator(".composite").inner_text() == composite_text(each.composite_score)
            for metric, cell in zip((srg, pointing), row.locator("td.measure").all(), strict=True):
                assert cell.inner_text().split("\n") == measured(each.quality.get(metric))
        assert axe(page) == []
        page.locator("table.quality th").nth(3).hover()
        tip = page.locator(".q-tooltip")
        tip.get_by_text(f"{srg}: ").wait_for()
        page.locator("h1").hover()
        tip.wait_for(state="hidden")

        over_time = charted(page, "Over time")
        axis = over_time["xAxis"][0]
        past = client.quality_history(start=axis["min"] / 1000, end=axis["max"] / 1000, bins=60)
        points = {explainer: each for (explainer, metric), each in past.scores.items() if metric == srg}
        means = {each["name"]: each["data"] for each in over_time["series"] if not each.get("stack")}
        assert means.keys() == points.keys() == {name for name, each in quality.explainers.items() if each.quality}
        for name, each in points.items():
            wanted = [(1000 * past.time_of(point.bin), point.mean) for point in each]
            assert_drawn(means[name], wanted)

        page.get_by_text("What counts, and how much").click()
        moved = {srg: 0.95, pointing: 0.35}
        for label, values in (("SRG", (0.95,)), ("Pointing game", (0.45, 0.4, 0.35))):
            slider = page.locator(f'.weights [aria-label="{label}"]')
            slider.locator("[tabindex]").focus()
            for value in values:
                page.keyboard.press("ArrowLeft")
                page.locator(f'.weights [aria-label="{label}"][aria-valuenow="{value}"]').wait_for()
        for name, each in quality.explainers.items():
            score = composite(each, moved)
            if score is not None:
                score *= min(1.0, each.composite_score / composite(each, quality.weights))
            cell = page.locator(f'tr[data-explainer="{name}"] .composite')
            cell.get_by_text(composite_text(score), exact=True).wait_for()
        changed = composite(quality.explainers["gradcam"], moved) - composite(
            quality.explainers["gradcam"], quality.weights
        )
        assert abs(changed) > 0.001
        at_night(page)
        assert axe(page) == []


def assert_drawn(points, wanted):
    """That a line of a chart goes through points, of milliseconds and what is measured."""
    (times, values), (at, drawn) = zip(*wanted, strict=True), zip(*points, strict=True)
    np.testing.assert_allclose(at, times, rtol=0, atol=0.01)
    np.testing.assert_allclose(drawn, values, rtol=0, atol=1e-5)


def composite_text(score):
    return "not measured" if score is None else f"{score:.3f}"


def measured(measure):
    """What a cell of the table says of a measure."""
    if measure is None:
        return ["not measured"]
    interval = [] if measure.interval is None else [" … ".join(map(number, measure.interval))]
    arrow = "↑" if measure.higher_is_better else "↓"
    return [f"{number(measure.mean)} {arrow}", *interval, f"n = {measure.sample_count}"]


def test_charts_are_drawn_wherever_they_stand(console, open_page, sampled):
    with open_page(console + "/quality") as page:
        far = page.locator(".chart").last
        far.locator("canvas").wait_for()
        assert far.bounding_box()["y"] > 900  # nobody has scrolled there


def test_classes_count_and_lead_to_their_samples(console, open_page, client, quality, axe, at_night):
    accuracy = client.quality().evaluator.accuracy
    with open_page(console + "/classes") as page:
        page.get_by_text(f"of {accuracy.picture_count:,} pictures are right.").wait_for()
        page.locator("[data-class-map] figure[data-drawn]").first.wait_for()
        at_night(page)
        assert axe(page) == []
        link = page.locator('a[href*="outcome=true_positive"]').first
        count = int(link.inner_text())
        link.click()
        page.locator(".samples li").first.wait_for()
        assert len(keys(page)) == count


def test_all_confusions_are_there_to_be_seen_and_found(console, open_page, client, photo, sampled, eventually):
    labels = client.model_info().labels
    asked = client.predict(photo, request_id="browser-confused")
    predicted = asked.classes[0].class_id
    true = [each for each in range(len(labels)) if each != predicted][-35:]
    client.report_ground_truth(asked.request_id, class_ids=true)
    eventually(lambda: any(each.true_class_id == true[-1] for each in client.quality().confusion))
    wrong = sum(each.true_class_id != each.predicted_class_id for each in client.quality().confusion)
    with open_page(console + "/classes") as page:
        rows = page.locator("table").first.locator("tbody tr")
        page.get_by_text(f"30 of {wrong}", exact=True).wait_for()
        assert rows.count() == 30
        page.get_by_role("button", name="More").click()
        page.get_by_text(f"{wrong} of {wrong}", exact=True).wait_for()
        assert rows.count() == wrong
        page.get_by_label("Of these classes").click()
        page.keyboard.type(labels[true[-1]])
        page.get_by_role("option", name=labels[true[-1]], exact=True).click()
        page.wait_for_url(re.compile(f"of={true[-1]}"))
        page.get_by_text("1 of 1", exact=True).wait_for()
        assert rows.all_inner_texts() == [f"{labels[true[-1]]}\t{labels[predicted]}\t1"]
        page.goto(f"{console}/classes?of={true[0] - 1}")
        page.get_by_text("These are taken for nothing else so far.").wait_for()


def test_drift_has_the_sdks_figures(console, open_page, client, quality, axe, at_night, charted):
    with open_page(console + "/drift") as page:
        page.locator(".figure .big").first.wait_for()
        traffic, mix = charted(page, "Traffic"), charted(page, "Class mix")
        axis = traffic["xAxis"][0]
        past = client.quality_history(start=axis["min"] / 1000, end=axis["max"] / 1000, bins=60)
        now = past.current
        assert now.sample_count == client.list_samples(with_total_count=True).total_count
        assert now.labelled_count >= 2
        shown = [each.inner_text().split("\n\n") for each in page.locator(".figure").all()]
        figures = {name: value for name, value, _ in shown}
        assert figures == {
            "Samples": f"{now.sample_count:,}",
            "Mean confidence": percent(now.mean_probability),
            "Right": percent(now.right_share),
        }
        assert {before for _, _, before in shown} == {"before: not measured"}  # there was no server then
        lines = {each["name"]: each["data"] for each in traffic["series"]}
        times = [1000 * past.time_of(each.bin) for each in past.traffic]
        counts, confidence = zip(*((each.sample_count, each.mean_probability) for each in past.traffic), strict=True)
        for name, each in (("Samples", counts), ("Mean confidence", confidence)):
            assert_drawn(lines[name], zip(times, each, strict=True))
        (series,) = mix["series"]
        shares = dict(zip(mix["yAxis"][0]["data"], series["data"], strict=True))
        assert shares == {now.labels[each]: pytest.approx(share, abs=1e-4) for each, share in now.shares.items()}
        page.get_by_text("All 15 alerts of Prometheus").click()
        page.locator(".alerts tbody tr").first.wait_for()
        rows = {row.locator("b").inner_text(): row.inner_text() for row in page.locator(".alerts tbody tr").all()}
        assert len(rows) == 15
        assert "too few samples of a week ago" in rows["XaiQualityFell"]
        assert "look at Prometheus" in rows["XaiDown"]
        at_night(page)
        assert axe(page) == []


def test_evidence_is_whole_and_needs_nothing_else(
    console, open_page, browser, client, sampled, tmp_path, pixels, axe, at_night
):
    sample = client.sample(sampled["wide"])
    with open_page(f"{console}/evidence?request={sampled['wide']}") as page:
        for kind in ("html", "zip"):
            with page.expect_download() as download:
                page.locator(f"[data-evidence={kind}]").click()
            download.value.save_as(tmp_path / f"sample.{kind}")
        at_night(page)
        assert axe(page) == []
    with zipfile.ZipFile(tmp_path / "sample.zip") as file:
        names = set(file.namelist())
        record = json.loads(file.read("sample.json"))
        for name, made in sample.explanations.items():
            for each in made.maps:
                stem = f"{name.replace('/', '-')}.{each.class_id}"
                if each.values is not None:
                    np.testing.assert_array_equal(np.load(io.BytesIO(file.read(f"maps/{stem}.npy"))), each.values)
                    assert f"overlays/{stem}.png" in names
        assert file.read("input.png") == sample.input_png
    assert record["summary"]["request_id"] == sampled["wide"]
    assert record["explanations"]["gradcam"]["scores"].keys() == sample.explanations["gradcam"].scores.keys()
    page = browser.new_page()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((tmp_path / "sample.html").as_uri())
    page.locator("body[data-drawn]").wait_for()
    assert page.locator("figure").count() == sum(len(each.maps) for each in sample.explanations.values())
    assert np.ptp(pixels(page.locator("figure canvas").first)) > 50
    assert [each for each in asked if not each.startswith(("file:", "data:"))] == []
    page.close()


def test_a_server_without_samples_says_what_to_do(start_misbehaving, start_console, open_page):
    with start_misbehaving("evaluator.sample_rate=1", forked=False) as server, start_console(server.grpc) as console:
        with open_page(console + "/") as page:
            page.get_by_text("No sample yet that fits").wait_for()
        with open_page(console + "/quality") as page:
            page.get_by_text("Nothing measured yet").wait_for()
            assert "0.000" not in page.locator("#main").inner_text()
    with start_misbehaving(forked=False) as server, start_console(server.grpc) as console:
        for path in ("/", "/quality", "/review"):
            with open_page(console + path) as page:
                page.get_by_text("This server keeps no samples").wait_for()
