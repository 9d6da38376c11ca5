"""English sentences of Wikipedia, to calibrate and to train on without labels.

The first 106 articles of an old dump (CC BY-SA 3.0), which the package ``gensim`` brings for its
own tests (see ``packages``).
"""

from __future__ import annotations

import bz2
import functools
import html
import re
from collections.abc import Iterator

from . import packages
from .similarity import DATA_PACKAGE

FILE = "test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
WORDS = (5, 50)
_GONE = re.compile(r"<ref[^>/]*>.*?</ref>|<!--.*?-->|<math>.*?</math>|<[^>]*>", re.DOTALL)
_INNERMOST = re.compile(r"\{\{[^{}]*\}\}|\{\|[^{}]*\|\}")
_NESTED = 4
_LINK = re.compile(r"\[\[(?:[^\[\]|]*\|)?([^\[\]|]*)\]\]")
_REST = re.compile(r"'{2,}|\[\S+ ?|\]")
_SENTENCE = re.compile(r"[\w\s,.;:'\"()!?%\u2013-]+")


@functools.cache
def wikipedia_sentences() -> tuple[str, ...]:
    """Return about 17,000 sentences of 5 to 50 words, in the order of the articles.

    Raises:
        MissingPackageError: the package with the data is not installed.
    """
    path = packages.file(*DATA_PACKAGE, FILE)
    with bz2.open(path, "rt", encoding="utf-8") as file:
        text = html.unescape(html.unescape(file.read()))
    pages = re.findall(r"<text[^>]*>(.*?)</text>", text, re.DOTALL)
    return tuple(sentence for page in pages for sentence in _sentences(_plain(page)))


def _plain(page: str) -> str:
    page = _GONE.sub("", page)
    for _ in range(_NESTED):
        page = _INNERMOST.sub("", page)
    return _REST.sub("", _LINK.sub(r"\1", page))


def _sentences(page: str) -> Iterator[str]:
    """Sentences of lines that start with a letter: others are headings, lists and tables."""
    for line in page.splitlines():
        if line[:1].isalpha():
            for sentence in re.split(r"(?<=[.!?]) ", line):
                least, most = WORDS
                if least <= len(sentence.split()) <= most and _SENTENCE.fullmatch(sentence):
                    yield sentence
