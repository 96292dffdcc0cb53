"""A console before a server that asks for credentials: each viewer sees and does what its own allow, and no more."""

import re
import urllib.request

from guarded_server import guarded, token_of

READER, LABELLER, PREDICTOR = "nothing but read", "all but feedback", "nothing but predict"


def page_for(console, path, name):
    """What a viewer is answered whose token a proxy sends with each request."""
    headers = {"Authorization": f"Bearer {token_of(name)}"}
    with urllib.request.urlopen(urllib.request.Request(console + path, headers=headers)) as answer:
        return answer.read().decode()


def test_viewers_see_and_do_what_their_own_credentials_allow(tmp_path, start_console, open_page, axe):
    evaluator = ("evaluator.sample_rate=1", f"evaluator.store=sqlite:///{tmp_path / 'store.db'}")
    token = tmp_path / "token"
    token.write_text(token_of(READER))
    with (
        guarded(tmp_path, "server.auth.tokens=tokens.toml", *evaluator) as server,
        start_console(server.grpc, "--ca", str(tmp_path / "ca.pem"), "--token-file", str(token)) as console,
    ):
        a_viewer_signs_in_and_out(console, open_page, axe)
        # The console itself may read, and has read for somebody before.
        lacks = "needs the role {}, which the token that the proxy sends for you does not have"
        assert lacks.format("read") in page_for(console, "/", PREDICTOR)
        assert lacks.format("predict and the role explain") in page_for(console, "/explain", READER)
        explaining = page_for(console, "/explain", LABELLER)
        assert "gradcam" in explaining
        assert "needs the role" not in explaining
        assert token_of(LABELLER) not in explaining
        # Each call was its viewer's own, and the console's where the viewer has nothing to show.
        callers = {re.search(r'"caller": "(.*?)"', line)[1] for line in server.log if '"event": "request"' in line}
        assert callers == {READER, LABELLER, PREDICTOR}


def a_viewer_signs_in_and_out(console, open_page, axe):
    needs = "This needs the role predict and the role explain, which the console does not have."
    with open_page(f"{console}/explain", allow=("401",)) as page:
        page.get_by_text(needs).wait_for()
        page.locator("#main").get_by_role("button", name="Sign in").click()
        form = page.locator(".sign-in-form")
        form.get_by_label("Token").fill("somebody-elses")
        form.get_by_role("button").click()
        form.get_by_text("does not know this token").wait_for()
        assert axe(page) == []
        form.get_by_label("Token").fill(token_of(LABELLER))
        form.get_by_label("Token").press("Enter")
        page.locator("[data-explainer=gradcam]").wait_for()
        (kept,) = [each for each in page.context.cookies() if each["name"].startswith("xai_session")]
        assert (kept["httpOnly"], kept["expires"], kept["sameSite"]) == (True, -1, "Lax")
        assert kept["value"] not in page.evaluate("document.cookie")
        assert token_of(LABELLER) not in kept["value"] + page.url + page.content()
        page.goto(f"{console}/review")
        page.get_by_text("This needs the role feedback, which your token does not have.").wait_for()
        with open_page(f"{console}/explain", width=390, height=844, scheme="dark") as other:  # of somebody else
            other.get_by_text(needs).wait_for()
            assert other.evaluate("document.documentElement.scrollWidth") <= 390
        page.goto(f"{console}/explain")
        page.get_by_role("button", name=re.compile("Sign out")).click()
        page.get_by_text(needs).wait_for()
