"""Explain now: what the page shows of a picture is what the SDK says of it."""

import re
import shlex

import numpy as np
import pytest

from xai_client.colours import scale_of
from xai_client.command.main import _parser
from xai_console.figures import percent

ROWS = COLUMNS = 224


def explain(page, photo, tile="gradcam"):
    """Gives the page a picture; returns the figure of an explanation once it is drawn."""
    page.locator(".drop input").set_input_files(photo)
    figure = page.locator(f"[data-tile={tile}] figure")
    figure.wait_for()
    return figure


@pytest.fixture(scope="module")
def expected(client, photo):
    """What the SDK says."""
    return client.predict(photo, explain=["gradcam", "gradient"], top_k=8)


def test_it_predicts_and_explains_as_the_sdk_does(console, open_page, photo, expected, drawn_values):
    with open_page(console + "/explain?explain=gradcam,gradient") as page:
        for name in ("gradcam", "gradient"):
            figure = explain(page, photo, name) if name == "gradcam" else page.locator(f"[data-tile={name}] figure")
            shown = drawn_values(figure, ROWS, COLUMNS)
            np.testing.assert_allclose(shown, expected.explanations[name].saliency, rtol=1e-4, atol=1e-6)
        rows = [row.inner_text().split("\n") for row in page.locator(".class").all()]
        assert rows == [[each.label, percent(each.probability)] for each in expected.classes]


def at_centres(values, region, size, shape):
    """The map at the centre of each pixel of a canvas, between the centres of its cells; NaN beside the region."""
    left, top, right, bottom = region

    def places(count, side, start, stop, cells):
        at = (np.arange(count) + 0.5) * side / count
        inside = (at > start + 1) & (at < stop - 1)
        cell = np.clip((at - start) / (stop - start) * cells - 0.5, 0, cells - 1)
        first = np.floor(cell).astype(int)
        return first, np.minimum(first + 1, cells - 1), cell - first, inside

    rows = places(shape[0], size[1], top, bottom, values.shape[0])
    columns = places(shape[1], size[0], left, right, values.shape[1])
    (r0, r1, down, seen_r), (c0, c1, across, seen_c) = rows, columns
    upper = values[r0][:, c0] * (1 - across) + values[r0][:, c1] * across
    lower = values[r1][:, c0] * (1 - across) + values[r1][:, c1] * across
    made = upper * (1 - down[:, None]) + lower * down[:, None]
    return np.where(seen_r[:, None] & seen_c[None, :], made, np.nan)


@pytest.mark.parametrize("explainer", ["gradcam", "gradient"])
def test_colours_are_what_the_scale_makes_of_the_values(
    explainer, console, open_page, photo, expected, drawn_values, pixels
):
    with open_page(f"{console}/explain?explain={explainer}&view=map") as page:
        figure = explain(page, photo, explainer)
        values = drawn_values(figure, ROWS, COLUMNS)
        shown = pixels(figure.locator("canvas").first)
    made = expected.explanations[explainer]
    scale = scale_of(values)
    levels = at_centres(scale.levels(values), made.region, made.picture_size, shown.shape)
    inside = ~np.isnan(levels)
    assert inside.mean() > 0.2
    place = np.where(inside, levels, 0) * 255
    table = scale.colours().astype(float)
    # A level between two colours may be rounded to either.
    sides = (np.clip(side(place), 0, 255).astype(int) for side in (np.floor, np.ceil))
    near = [np.abs(table[side] - shown).max(axis=2) for side in sides]
    assert np.minimum(*near)[inside].max() <= 1
    assert len(np.unique(np.rint(place[inside]))) > 100  # and not a map of one colour


def test_a_map_lies_on_the_greyed_photograph_as_opaque_as_the_sdk_has_it(
    console, open_page, photo, expected, drawn_values, pixels
):
    with open_page(f"{console}/explain?explain=gradcam&view=picture") as page:
        figure = explain(page, photo)
        values = drawn_values(figure, ROWS, COLUMNS)
        below = pixels(figure.locator("canvas").first)
        page.get_by_role("button", name="On the picture").click()
        page.wait_for_url(re.compile("view=overlay"))
        page.wait_for_timeout(200)
        shown = pixels(figure.locator("canvas").first)
    made, scale = expected.explanations["gradcam"], scale_of(values)
    levels = at_centres(scale.levels(values), made.region, made.picture_size, shown.shape)
    inside = ~np.isnan(levels)
    index = np.rint(np.where(inside, levels, 0) * 255).astype(int)
    grey = below @ [0.299, 0.587, 0.114]
    seen = grey[..., None] + 0.2 * (below - grey[..., None])
    opacity = 0.75 * scale.strength()[index][..., None]
    wanted = seen + opacity * (scale.colours()[index] - seen)
    assert np.abs(wanted - shown)[inside].max() <= 4
    box = [round(edge * shown.shape[1] / made.picture_size[0]) for edge in made.region]
    outside = shown[:, : box[0] - 2]
    assert np.ptp(outside, axis=2).max() == 0  # grey beside what the model saw


def test_the_value_under_the_pointer_is_that_of_the_map(console, open_page, photo, expected, drawn_values):
    with open_page(console + "/explain?explain=gradcam") as page:
        figure = explain(page, photo)
        values = drawn_values(figure, ROWS, COLUMNS)
        made = expected.explanations["gradcam"]
        left, top, right, bottom = made.region
        for x, y in ((230, 150), (150, 200)):
            box = figure.locator("canvas").first.bounding_box()
            width, height = made.picture_size
            page.mouse.move(box["x"] + x / width * box["width"], box["y"] + y / height * box["height"])
            column = int((x - left) / (right - left) * COLUMNS)
            row = int((y - top) / (bottom - top) * ROWS)
            around = values[row - 2 : row + 3, column - 2 : column + 3]
            told = float(figure.locator(".map-value").inner_text())
            assert around.min() * 0.995 <= told <= around.max() * 1.005


def test_the_form_is_made_from_what_the_server_says(console, client, open_page, photo):
    info = client.model_info()
    with open_page(console + "/explain?explain=rise") as page:
        chips = page.locator("[data-explainer]")
        assert [each.get_attribute("data-explainer") for each in chips.all()] == ["auto", *info.explainers]
        for name, each in info.explainers.items():
            assert page.locator(f"[data-explainer={name}]").is_disabled() != each.available
        page.locator(".parameters").get_by_text("rise").click()
        for parameter in info.explainers["rise"].parameters.values():
            page.locator(f'[data-parameter="rise.{parameter.name}"]').first.wait_for()
        masks = info.explainers["rise"].parameters["masks"]
        field = page.locator('input[data-parameter="rise.masks"]')
        assert float(field.input_value()) == masks.default == 64
        assert (float(field.get_attribute("min")), float(field.get_attribute("max"))) == (masks.minimum, masks.maximum)
        field.fill("32")
        page.get_by_text("--param rise.masks=32").wait_for()
        explain(page, photo, "rise")
        page.get_by_text("Passes: 32").wait_for()
        # The seed that the server drew stands in the lines that repeat it.
        line = page.locator("[data-language=Shell]").inner_text()
        arguments = _parser().parse_args(shlex.split(line)[1:])
        assert arguments.seed is not None
        assert arguments.param == ["rise.masks=32"]


def test_a_class_that_is_clicked_is_explained(console, open_page, photo, client, drawn_values):
    wanted = client.predict(photo, explain="gradcam", top_k=2)
    second = wanted.classes[1]
    from xai_client import Explain

    expected = client.predict(photo, explain=Explain("gradcam", targets=second.class_id)).explanations["gradcam"]
    with open_page(console + "/explain?explain=gradcam") as page:
        drawn_values(explain(page, photo), ROWS, COLUMNS)
        page.locator(f'[data-class="{second.class_id}"]').click()
        figure = page.locator(f'[data-tile=gradcam] figure:has(canvas[aria-label="gradcam: {second.label}"])')
        figure.wait_for()
        shown = drawn_values(figure, ROWS, COLUMNS)
        np.testing.assert_allclose(shown, expected.saliency, rtol=1e-4, atol=1e-6)
        assert page.locator("[aria-pressed=true][data-class]").get_attribute("data-class") == str(second.class_id)


def test_a_sample_is_explained_as_the_model_saw_it(
    console, open_page, photo, client, drawn_values, eventually, tmp_path, monkeypatch
):
    ids = [client.predict(photo).request_id for _ in range(2)]
    names = {f"{each}/0" for each in ids}
    eventually(lambda: names <= {each.id for each in client.list_samples().samples if each.has_thumbnail})
    seen = client.sample(ids[1]).model_input(client.model_info().input)
    expected = client.predict(seen, explain="gradcam", skip_sampling=True)
    with open_page(f"{console}/sample?request={ids[1]}") as page:
        link = page.get_by_role("link", name="Explain again with other settings").get_attribute("href")
        page.goto(f"{console}{link}&explain=gradcam")
        figure = page.locator("[data-tile=gradcam] figure")
        shown = drawn_values(figure, ROWS, COLUMNS)
        np.testing.assert_allclose(shown, expected.explanations["gradcam"].saliency, rtol=1e-4, atol=1e-6)
        rows = [row.inner_text().split("\n") for row in page.locator(".class").all()]
        assert rows[:5] == [[each.label, percent(each.probability)] for each in expected.classes]
        page.locator(".preview .map-shapes .seen").first.wait_for(state="attached")
        # The lines that repeat it make the same map; there are none for a shell, whose command takes files.
        lines = page.locator("[data-language]")
        assert [each.get_attribute("data-language") for each in lines.all()] == ["Python"]
        monkeypatch.chdir(tmp_path)
        exec(lines.inner_text(), repeated := {})
        made = repeated["prediction"].explanations["gradcam"].saliency
        np.testing.assert_allclose(shown, made, rtol=1e-4, atol=1e-6)
        # Another sample is chosen on the page, then a picture of the viewer's own.
        page.locator(f'[data-sample="{ids[0]}/0"]').click()
        page.wait_for_url(re.compile(f"request={ids[0]}"))
        page.locator(f'[data-sample="{ids[0]}/0"][aria-pressed=true]').wait_for()
        page.locator("[data-tile=gradcam] figure[data-drawn]").wait_for()
        explain(page, photo)
        page.locator("[data-language=Shell]").wait_for()
        page.wait_for_url(lambda url: "request=" not in url)
        assert page.locator(".pick[aria-pressed=true]").count() == 0
        page.goto(f"{console}/explain?request=nobody")
        page.get_by_text("This sample is no longer kept").wait_for()


def test_what_runs_can_be_stopped(console, open_page, photo):
    with open_page(console + "/explain?explain=rise") as page:
        page.locator(".parameters").get_by_text("rise").click()
        page.locator('input[data-parameter="rise.masks"]').fill("5000")
        page.locator('input[data-parameter="rise.tolerance"]').fill("0")
        explain(page, photo, "rise")
        page.get_by_text(re.compile(r"of 5000 passes")).wait_for()
        stop = page.get_by_role("button", name="Stop")
        stop.click()
        stop.wait_for(state="hidden")
        page.get_by_role("button", name="Explain", exact=True).wait_for()


def test_auto_says_what_it_took_and_why(console, open_page, photo):
    with open_page(console + "/explain?explain=auto") as page:
        explain(page, photo, "auto").locator("xpath=self::*[@data-drawn]").wait_for()
        tile = page.locator("[data-tile=auto]")
        tile.locator(".tag", has_text=re.compile(r"\w")).wait_for()
        assert tile.locator(".tag").inner_text() in ("gradcam", "gradient", "rise")
        assert len(tile.locator(".tile-lines").inner_text()) > 40


def test_what_is_no_picture_is_refused_in_words(console, open_page, tmp_path):
    file = tmp_path / "notes.png"
    file.write_text("no picture")
    allowed = ["400 (Bad Request)"]  # browsers log each refusal
    with open_page(console + "/explain", allow=allowed) as page:
        page.locator(".drop input").set_input_files(file)
        page.get_by_text(re.compile("cannot be decoded")).first.wait_for()


def test_choices_stand_in_the_url(console, open_page, photo, drawn_values):
    with open_page(console + "/explain?explain=gradcam") as page:
        drawn_values(explain(page, photo), ROWS, COLUMNS)
        page.get_by_role("button", name="Map alone").click()
        page.wait_for_url(re.compile(r"view=map"))
        page.locator("[data-explainer=gradient]").click()
        page.wait_for_url(re.compile(r"explain=gradcam,gradient"))
        page.reload()
        page.locator("[data-explainer=gradient][aria-pressed=true]").wait_for()
        drawn_values(explain(page, photo), ROWS, COLUMNS)
        assert page.get_by_role("button", name="Map alone").get_attribute("aria-pressed") == "true"
