"""What search compares: a text folded to one spelling, and its grams, by which an index finds it.

A text matches a word where the folded text contains the folded word, so every part of a name is found. Two indexes
make this fast. PostgreSQL's extension pg_trgm indexes ``search_text`` by groups of three letters and digits. In a
database whose LC_CTYPE is C it sees only those of ASCII, and it never finds a word of one or two characters. For both
there are the *grams*, our own groups of characters, in ``search_grams``:

- every character, and every two neighbours, of scripts that put no space between words (Chinese, Japanese, Thai …),
  of Korean, and of symbols;
- every three neighbours in a word, where one of them is beyond ASCII;
- words of one or two characters, as they stand between other characters or as a part of a name (``id`` in ``userId``,
  ``py`` in ``main.py``, ``v2`` in ``/v2/``).

They are computed here and not in SQL, since PostgreSQL folds letters beyond ASCII by the locale and the version of each
server. This way the journal's texts, which PostgreSQL does not have yet, are searched by the same rules.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise
from typing import TypedDict

from mistral_api.payload_types.chat import MessageContent

MAX_SEARCHED_CHARACTERS = 200_000
# Shorter words are found as whole words or parts of names only: any text has most groups of two letters.
SHORTEST_PART = 3

# Symbols are treated as the scripts without spaces are: each is found by itself.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u11ff\u1780-\u17ff\u19e0-\u19ff\u2070-\u2bff\u2e80-\u2fdf\u3005-\u3007\u3021-\u302f"
    "\u3031-\ua4cf\ua960-\ua97f\uaa60-\uaa7f\uac00-\ud7ff\uf900-\ufaff\U0001b000-\U0001b2ff\U0001f000-\U0003ffff"
)
_SEPARATORS = "\x00-/:-@\\[-`{-\x7f\u0080-\u00a9\u00ab-\u00b4\u00b6-\u00b9\u00bb-\u00bf\u00d7\u00f7\u060c\u061b\u061f"
_MORE_SEPARATORS = "\u0964\u0965\u2000-\u206f\u2e00-\u2e7f\u3000-\u3004\u3008-\u3020\u3030\ufe10-\ufe6f\uff00-\uff0f"
# Letters and digits of one word; a script without spaces ends it.
WORD = re.compile(f"[^{_SEPARATORS}{_MORE_SEPARATORS}{_UNSPACED}]+")
UNSPACED = re.compile(f"[{_UNSPACED}]+")
# The parts of a name such as userId, HTTPServer or utf8.
NAME_PART = re.compile("[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_HALF_WIDTH_KANA = re.compile("[\uff65-\uff9f]+")
_MARKS = re.compile("[\u0300-\u036f\\s]+")
# More signs in a row than any writing puts onto a letter; there are marks among them.
_MANY_SIGNS = re.compile(r"([^\w\s\x00-\x7f]{128})")
# Punctuation that ASCII has too, and letters that Unicode does not take for another one with an accent.
_REPLACED = str.maketrans(
    dict.fromkeys("\u2018\u2019\u201a\u201b", "'")
    | dict.fromkeys("\u201c\u201d\u201e\u201f\u300c\u300d\u300e\u300f", '"')
    | dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-")
    | {"\u3001": ",", "\u3002": ".", "\u3010": "[", "\u3011": "]"}
    | {"\u3008": "<", "\u3009": ">", "\u300a": "<", "\u300b": ">"}
    | {"\u0131": "i", "\u0142": "l", "\u00f8": "o", "\u0111": "d"}
)


class SearchColumns(TypedDict):
    """The columns ``search_text`` and ``search_grams`` of a message or a title; null where there is no text."""

    search_text: str | None
    search_grams: list[str] | None


def search_columns(text: str | None) -> SearchColumns:
    """Return the search columns of a text."""
    if text is None:
        return {"search_text": None, "search_grams": None}
    normalized = normalize(text)
    folded = fold_normalized(normalized)
    return {"search_text": folded, "search_grams": sorted(short_words(normalized, folded) | long_grams(folded))}


def searchable_text(content: MessageContent) -> str | None:
    """Return the text of a message's content, cut to a length, or None where there is none."""
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        content = " ".join(part for part in parts if isinstance(part, str))
    if not isinstance(content, str) or not content:
        return None
    return content[:MAX_SEARCHED_CHARACTERS]


def normalize(text: str) -> str:
    """Return a text in the form that is folded character by character; it looks the same."""
    if text.isascii():
        return text
    return _HALF_WIDTH_KANA.sub(lambda kana: unicodedata.normalize("NFKC", kana[0]), compose(text))


def compose(text: str) -> str:
    """Return a text in Unicode's form NFC.

    The time for a letter grows with the square of the number of its marks, and nothing else in this process runs
    meanwhile. Therefore of very many signs in a row each portion is composed by itself.
    """
    if text.isascii():
        return text
    return "".join(unicodedata.normalize("NFC", portion) for portion in _MANY_SIGNS.split(text))


def fold(text: str) -> str:
    """Return a text in one spelling.

    Case, accents on letters, widths and ligatures do not count, quotation marks and dashes are those of ASCII, and any
    white space is one space.
    """
    return fold_normalized(normalize(text))


def fold_normalized(normalized: str) -> str:
    """Return what :func:`fold` does, for a text that :func:`normalize` returned."""
    return " ".join(fold_characters(normalized).split())


def fold_characters(normalized: str) -> str:
    """Return a normalized text with each character folded by itself, white space included."""
    return normalized.lower() if normalized.isascii() else normalized.translate(_FOLDED)


class _FoldedCharacters(dict[int, str]):
    """The folded form of each character, computed when it is first met."""

    def __missing__(self, code: int) -> str:
        self[code] = folded = _fold_character(chr(code))
        return folded


def _fold_character(character: str) -> str:
    if character.isspace():
        return " "
    if unicodedata.category(character) == "Cf" or "\ufe00" <= character <= "\ufe0f":
        return ""  # joiners, directions, soft hyphens, variants: none of them is seen
    decomposed = unicodedata.normalize("NFKD", character.translate(_REPLACED)).casefold()
    # Accents go, but no vowel signs and no voicing marks of scripts where these make another letter.
    letters = _MARKS.sub("", unicodedata.normalize("NFKD", decomposed))
    return unicodedata.normalize("NFC", letters).translate(_REPLACED)


_FOLDED = _FoldedCharacters()


def short_words(normalized: str, folded: str) -> set[str]:
    """Return the folded words, and parts of names, that have one or two characters."""
    words = {word for word in WORD.findall(folded) if len(word) < SHORTEST_PART}
    names = [normalized] if normalized.isascii() else [word for word in WORD.findall(normalized) if word.isascii()]
    return words | {part.lower() for name in names for part in NAME_PART.findall(name) if len(part) < SHORTEST_PART}


def long_grams(folded: str) -> set[str]:
    """Return the grams of a folded text that it has wherever a word with them stands in it."""
    if folded.isascii():
        return set()
    grams: set[str] = set()
    for run in UNSPACED.findall(folded):
        grams.update(run)
        grams.update(map("".join, pairwise(run)))
    for word in WORD.findall(folded):
        if not word.isascii():
            windows = (word[start : start + 3] for start in range(len(word) - 2))
            grams.update(window for window in windows if not window.isascii())
    return grams


def query_grams(folded: str) -> set[str]:
    """Return the grams that every text with a folded word has. Two neighbours tell more than each by itself."""
    alone = {run for run in UNSPACED.findall(folded) if len(run) == 1}
    return {gram for gram in long_grams(folded) if len(gram) > 1 or gram in alone}
