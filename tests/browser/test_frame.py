"""What every page has around it: navigation, language, colours, the state of the server, and no way out."""

import re
import urllib.request

import pytest

PAGES = ["/", "/explain", "/quality", "/classes", "/drift", "/review", "/sample", "/evidence", "/side-by-side"]


def settled(page):
    """Waits until a page has its content."""
    page.locator("#main > *").first.wait_for()
    page.wait_for_load_state("networkidle")


@pytest.mark.parametrize("path", PAGES)
def test_each_page_is_reached_named_and_fit_for_all_also_on_a_narrow_screen_and_dark(
    path, console, open_page, axe, at_night
):
    with open_page(console + path) as page:
        settled(page)
        heading = page.locator("h1").inner_text()
        assert page.title() == f"{heading} · xai-sidecar"
        here = page.locator("nav [aria-current=page]")
        assert [each.get_attribute("href") for each in here.all()] == ([path] if path in PAGES[:6] else [])
        assert axe(page) == []
        at_night(page)
        assert axe(page) == []
        box = page.locator("nav").bounding_box()
        assert box["y"] + box["height"] == pytest.approx(844, abs=1)
        assert all(link.is_visible() for link in page.locator("nav .nav-link").all())


def test_dark_pages_can_be_read_as_well(console, open_page, axe):
    with open_page(console + "/explain", scheme="dark") as page:
        settled(page)
        assert axe(page) == []
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert max(map(int, re.findall(r"\d+", ground))) < 60


def test_the_language_is_chosen_and_kept_also_where_there_is_no_page(console, open_page):
    with open_page(console + "/explain?explain=gradcam") as page:
        page.get_by_role("button", name="Language").click()
        page.get_by_text("中文").click()
        page.get_by_role("heading", name="即时解释").wait_for()
        page.locator("html[lang=zh-CN]").wait_for()
        page.get_by_role("button", name='展开"gradcam"').wait_for()
        assert page.url.endswith("/explain?explain=gradcam")
        page.goto(console + "/quality")
        page.get_by_role("heading", name="质量").wait_for()
    with open_page(console + "/nowhere", locale="zh-CN", allow=["404"]) as page:
        page.get_by_role("heading", name="没有此页面").wait_for()
        assert page.request.get(page.url).status == 404
        page.get_by_role("link", name="即时解释").click()
        page.get_by_role("heading", name="即时解释").wait_for()


def test_colours_are_chosen_and_kept(console, open_page):
    with open_page(console + "/explain") as page:
        for expected in ("light", "dark"):
            page.get_by_role("button", name=re.compile("Colours")).click()
            page.locator(f"html[data-theme={expected}]").wait_for()
        page.goto(console + "/quality")
        page.locator("html[data-theme=dark] body.body--dark").wait_for()


def test_the_keyboard_reaches_the_content_at_once(console, open_page):
    with open_page(console + "/explain") as page:
        settled(page)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
        page.keyboard.press("Enter")
        page.wait_for_function("location.hash == '#main'")


def test_a_server_that_is_away_is_waited_for_and_comes_back(start_misbehaving, start_console, open_page):
    with start_misbehaving(forked=False) as first:
        address = first.grpc
    with start_console(address) as console, open_page(console + "/explain") as page:
        page.get_by_role("alert").filter(has_text=address).wait_for()
        page.get_by_text("Waiting for the server").wait_for()
        for _ in range(2):  # the first time, and once more
            with start_misbehaving(f"server.grpc={address}", forked=False):
                page.locator("[data-explainer=gradcam]").wait_for()
                page.get_by_role("alert").wait_for(state="hidden")
                page.get_by_text("Connected", exact=True).wait_for()
            page.get_by_role("alert").filter(has_text=address).wait_for()
            page.get_by_text("No connection", exact=True).wait_for()
            assert page.locator("[data-explainer=gradcam]").is_visible()  # what was there stays


def test_answers_are_for_its_own_pages_alone(console):
    request = urllib.request.Request(console, headers={"Host": "rebound.example"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    assert caught.value.code == 403
    with urllib.request.urlopen(console) as answer:
        assert "script-src 'self' 'nonce-" in answer.headers["content-security-policy"]
