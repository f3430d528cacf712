"""Where a text was hit: an extract of it with the hits marked, as HTML that is safe to show.

The text is escaped; the only tags are ``<mark>`` and ``</mark>`` around each hit.
"""

from __future__ import annotations

import html
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile

from mistral_api.conversations.search_query import SearchedText, SearchQuery, Term, Word
from mistral_api.conversations.search_text import NAME_PART, WORD, fold, fold_characters

# The length of an extract in characters, and how many of them stand before the first hit.
EXTRACT_LENGTH, LEAD_LENGTH = 180, 50
# An extract is cut between words where that costs at most this many characters.
_LONGEST_CUT = 20
# So many hits of each term are looked for, and so many of all are looked at to choose the extract.
_MOST_HITS, _MOST_CANDIDATES = 100, 500
_TOKEN = re.compile(r"\S+")


@dataclass(frozen=True, slots=True, order=True)
class Hit:
    """A hit of a term: the characters from ``start`` to before ``end`` of the normalized text."""

    start: int
    end: int
    term: int


def match_snippet(query: SearchQuery, text: str | None) -> str | None:
    """Return the extract of a text that matches a query, None for one that does not (see :func:`make_snippet`).

    ``text`` is what ``searchable_text`` returns for a message, or a title. The rules are those by which PostgreSQL
    finds stored messages.
    """
    searched = SearchedText(text) if text is not None else None
    return make_snippet(query, searched) if searched is not None and query.matches(searched) else None


def make_snippet(query: SearchQuery, searched: SearchedText) -> str:
    """Return an extract of a text as HTML, with the hits of a query marked; its beginning where there are none."""
    hits = find_hits(query, searched)
    start, end = _choose_extract(searched.normalized, hits)
    return _mark(searched.normalized, start, end, [hit for hit in hits if start <= hit.start and hit.end <= end])


def find_hits(query: SearchQuery, searched: SearchedText) -> list[Hit]:
    """Return the first hits of every term that is to be found, in their order."""
    offsets = _FoldedOffsets(searched.normalized)
    return sorted(
        Hit(start, end, number)
        for number, term in enumerate(query.positive_terms)
        for start, end in islice(_find_term(term, searched, offsets), _MOST_HITS)
    )


def _find_term(term: Term, searched: SearchedText, offsets: _FoldedOffsets) -> Iterator[tuple[int, int]]:
    if term.pattern is None and term.words[0].short_words == {term.words[0].text}:
        yield from _find_short_word(term.words[0], searched)
        return
    pattern = re.escape(term.words[0].text) if term.pattern is None else term.pattern
    for found in re.finditer(pattern, searched.folded):
        yield offsets.original_span(found.start(), found.end())


def _find_short_word(word: Word, searched: SearchedText) -> Iterator[tuple[int, int]]:
    for whole in WORD.finditer(searched.normalized):
        if fold(whole[0]) == word.text:
            yield whole.span()
        elif whole[0].isascii():
            for part in NAME_PART.finditer(whole[0]):
                if part[0].lower() == word.text:
                    yield whole.start() + part.start(), whole.start() + part.end()


class _FoldedOffsets:
    """Which characters of a normalized text those of the folded text come from."""

    def __init__(self, normalized: str) -> None:
        self._normalized = normalized
        self._tokens: list[tuple[int, int]] = []
        position = 0
        for token in _TOKEN.finditer(normalized):
            length = len(fold_characters(token[0]))
            if length:
                self._tokens.append((position, token.start()))
                position += length + 1

    def original_span(self, start: int, end: int) -> tuple[int, int]:
        """Return the span of the normalized text for one of the folded text, which is not empty."""
        return self._character(start), self._character(end - 1) + 1

    def _character(self, offset: int) -> int:
        """Return the offset of the character that the folded one at ``offset`` comes from."""
        folded_start, position = self._tokens[bisect_right(self._tokens, (offset, len(self._normalized))) - 1]
        while (folded_start := folded_start + len(fold_characters(self._normalized[position]))) <= offset:
            position += 1
        return position


def _choose_extract(normalized: str, hits: Sequence[Hit]) -> tuple[int, int]:
    """Return the bounds of the extract that has hits of the most terms, the first of these."""
    if not hits:
        return 0, _cut(normalized, EXTRACT_LENGTH)
    first = hits[max(range(min(len(hits), _MOST_CANDIDATES)), key=lambda number: _count_terms(hits, number))]
    start = max(0, first.start - LEAD_LENGTH)
    end = max(start + EXTRACT_LENGTH, first.end)
    if start:
        space = re.search(r"\s", normalized[start : min(first.start, start + _LONGEST_CUT)])
        start += space.end() if space else 0
    return start, max(_cut(normalized, end), first.end)


def _count_terms(hits: Sequence[Hit], first: int) -> int:
    """Return how many terms have hits in the extract that begins with a hit."""
    end = hits[first].start + EXTRACT_LENGTH - LEAD_LENGTH - _LONGEST_CUT
    within = takewhile(lambda hit: hit.start < end, islice(hits, first, None))
    return len({hit.term for hit in within if hit.end <= end})


def _cut(normalized: str, end: int) -> int:
    if end >= len(normalized):
        return len(normalized)
    for position in range(end, end - _LONGEST_CUT, -1):
        if normalized[position].isspace():
            return position
    return end


def _mark(normalized: str, start: int, end: int, hits: Sequence[Hit]) -> str:
    pieces, position = ["\u2026"] if start else [], start
    for hit in hits:
        if hit.end <= position:
            continue  # within a hit of another term
        if hit.start > position or not pieces or pieces[-1] != "</mark>":
            pieces += [_shown(normalized[position : hit.start]), "<mark>"]
        else:
            pieces.pop()  # it overlaps the hit before it, or follows at once: one mark for both
        pieces += [_shown(normalized[max(position, hit.start) : hit.end]), "</mark>"]
        position = hit.end
    pieces += [_shown(normalized[position:end]), "\u2026" if end < len(normalized) else ""]
    return "".join(pieces).strip()


def _shown(piece: str) -> str:
    """Return a piece of a text as HTML on one line."""
    return html.escape(re.sub(r"\s+", " ", piece))
