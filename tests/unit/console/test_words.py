"""Everything is said in both languages, nothing that is said is missing, and nothing is there that is never said."""

import ast
import re
from pathlib import Path

import pytest

from xai_console.words import LANGUAGES, TABLES, WORDS, Words, language_of

CONSOLE = Path(__file__).parents[3] / "client" / "xai_console"
CHINESE = re.compile(r"[\u4e00-\u9fff]")
SAME_IN_BOTH = {"flag.true_positive", "flag.false_positive", "flag.false_negative", "quality.n", "colours.inferno",
                "colours.turbo", "contrast.difference", "metric.srg", "metric.road", "metric.iosr"}  # fmt: skip


def said():
    """The keys that the code says, and the beginnings of those that it puts together."""
    whole, beginnings = set(), set()
    for path in CONSOLE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and node.value in WORDS:
                whole.add(node.value)
            if isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
                beginnings.add(node.values[0].value)
    return whole, {each for each in beginnings if each.endswith((".", "_"))}


def calls():
    for path in CONSOLE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
                if name == "say" and isinstance(node.args[0].value, str):
                    yield path.name, node


def test_both_languages_are_complete():
    assert set(LANGUAGES) == {"en", "zh"}
    for key, texts in WORDS.items():
        assert len(texts) == 2, key
        assert all(text.strip() for text in texts), key
        if key not in SAME_IN_BOTH:
            assert CHINESE.search(texts[1]), key
        assert not CHINESE.search(texts[0]), key


def test_both_languages_name_the_same_values():
    for key, (english, chinese) in WORDS.items():
        assert sorted(re.findall(r"{\w+}", english)) == sorted(re.findall(r"{\w+}", chinese)), key


def test_no_key_is_in_two_tables():
    assert len(WORDS) == sum(map(len, TABLES))


def test_all_that_is_said_is_there_with_its_values():
    found = list(calls())
    assert len(found) > 50
    for file, node in found:
        key = node.args[0].value
        assert key in WORDS, f"{file}: {key}"
        if not any(keyword.arg is None for keyword in node.keywords):
            assert {keyword.arg for keyword in node.keywords} == set(re.findall(r"{(\w+)}", WORDS[key][0])), key


def test_all_that_is_there_is_said():
    whole, beginnings = said()
    unused = [key for key in WORDS if key not in whole and not key.startswith(tuple(beginnings))]
    assert not unused


@pytest.mark.parametrize(
    ("cookie", "accepted", "language"),
    [
        ("", "", "en"),
        ("", "zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("", "fr-FR, de;q=0.7, zh;q=0.3", "zh"),
        ("", "fr", "en"),
        ("en", "zh-CN", "en"),
        ("zh", "en-US", "zh"),
        ("xx", "zh-TW", "zh"),
    ],
)
def test_the_language_is_that_chosen_else_that_of_the_browser(cookie, accepted, language):
    assert language_of(cookie, accepted) == language


def test_what_a_later_server_says_is_shown_as_it_is():
    say = Words("zh")
    assert say.either("score.error", "error") == "失败"
    assert say.either("score.from_the_future", "from the future") == "from the future"
