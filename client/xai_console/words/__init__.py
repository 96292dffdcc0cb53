"""Everything the console says, in English and in Chinese, by key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from xai_console.words import common, explaining, measured, sampled
from xai_console.words.told import TOLD

Language: TypeAlias = Literal["en", "zh"]
Table: TypeAlias = Mapping[str, tuple[str, str]]

LANGUAGES: Final[Mapping[Language, str]] = {"en": "English", "zh": "中文"}
LOCALES: Final[Mapping[Language, Literal["en-US", "zh-CN"]]] = {"en": "en-US", "zh": "zh-CN"}
TABLES: Final[tuple[Table, ...]] = (common.WORDS, explaining.WORDS, sampled.WORDS, measured.WORDS)
WORDS: Final[Table] = {key: texts for table in TABLES for key, texts in table.items()}


class Words:
    """The words of one language.

    Args:
        language: Which one.
    """

    def __init__(self, language: Language) -> None:
        self.language: Language = language
        self._place = list(LANGUAGES).index(language)

    def __call__(self, key: str, **values: object) -> str:
        """A text, with values put where it names them."""
        text = WORDS[key][self._place]
        return text.format(**values) if values else text

    def either(self, key: str, otherwise: str) -> str:
        """A text, or another one where there is none of this key, such as for what a later server says."""
        return self(key) if key in WORDS else otherwise

    def told(self, key: str, said: str, **values: object) -> str:
        """What the server tells in English, in this language where there are words for it.

        Args:
            key: Which kind of thing it tells.
            said: Its own words.
            **values: What words of this language may name.
        """
        text = TOLD.get(key) if self.language == "zh" else None
        return said if text is None else text.format(said=said, **values)


def language_of(cookie: str, accepted: str) -> Language:
    """The language to speak: the one chosen before, else the first that the browser asks for and there is.

    Args:
        cookie: What was chosen; empty if nothing.
        accepted: The header Accept-Language.
    """
    for each in (cookie, *accepted.split(",")):
        code = each.partition(";")[0].strip().lower()[:2]
        for language in LANGUAGES:
            if code == language:
                return language
    return "en"
