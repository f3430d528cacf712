"""The text of a search box as a query, and whether a text matches it.

``search`` has the same rules as conditions for PostgreSQL. A query has alternatives (``or``), an alternative has terms
that must all be found in one text, or must all be absent from it (``-term``). A term is a word or a phrase.

- A word is found where the folded text contains it (``search_text``), also inside of longer words and names. One that
  is made of words of one or two characters alone (``py``, ``c++``) is only found where these are words or parts of
  names.
- The words of a phrase are found in their order, with nothing but white space and punctuation between them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from mistral_api.conversations.search_text import (
    SHORTEST_PART,
    UNSPACED,
    WORD,
    fold,
    fold_normalized,
    normalize,
    query_grams,
    short_words,
)

# A phrase, which may lack its closing quotation mark, or what stands between spaces.
_TOKEN = re.compile(r'(?P<minus>-?)"(?P<phrase>[^"]*)(?:"|$)|(?P<word>[^\s"]+)')
_QUOTATION_MARKS = str.maketrans("\u201c\u201d\u201e", '"""')
_EDGES = ".,;:!?()[]{}<>'`\""
# Whatever of ASCII is no letter and no digit. PostgreSQL and Python read it the same way.
_BETWEEN_WORDS = r"[\u0001-\u002f\u003a-\u0060\u007b-\u007f]"
_ASCII_PART = re.compile(f"[a-z0-9]{{{SHORTEST_PART},}}")


@dataclass(frozen=True)
class SearchedText:
    """A text to be searched. Its forms are computed when they are first needed."""

    original: str

    @cached_property
    def normalized(self) -> str:
        """The text as ``search_text.normalize`` returns it."""
        return normalize(self.original)

    @cached_property
    def folded(self) -> str:
        """The text in one spelling."""
        return fold_normalized(self.normalized)

    @cached_property
    def short_words(self) -> set[str]:
        """The words and parts of names with one or two characters."""
        return short_words(self.normalized, self.folded)


@dataclass(frozen=True, slots=True)
class Word:
    """A folded word.

    ``short_words`` are words that the text must have by themselves, ``grams`` those that an index finds it by.
    ``has_trigram`` says whether pg_trgm can find it.
    """

    text: str
    short_words: frozenset[str]
    grams: frozenset[str]
    has_trigram: bool

    def matches(self, searched: SearchedText) -> bool:
        """Return whether a text has the word."""
        return self.text in searched.folded and self.short_words <= searched.short_words

    @property
    def is_gram(self) -> bool:
        """Whether a text has the word if it has its grams."""
        return self.grams == {self.text}


def parse_word(folded: str) -> Word | None:
    """Return a folded word, None for one without a letter, digit or symbol: nobody looks for a comma alone."""
    words = set(WORD.findall(folded))
    if not words and not UNSPACED.search(folded):
        return None
    only_short = not UNSPACED.search(folded) and all(len(word) < SHORTEST_PART for word in words)
    short = frozenset(words) if only_short else frozenset[str]()
    return Word(folded, short, short | query_grams(folded), _ASCII_PART.search(folded) is not None)


@dataclass(frozen=True)
class Term:
    """A word, or a phrase of several, that must be found, or must be absent where it is ``negated``."""

    words: tuple[Word, ...]
    negated: bool = False

    @cached_property
    def pattern(self) -> str | None:
        """The regular expression of a phrase, None for a single word. Python and PostgreSQL read it the same way."""
        if len(self.words) == 1:
            return None
        joined = [_escape(self.words[0].text)]
        for former, word in zip(self.words, self.words[1:], strict=False):
            apart = not (UNSPACED.match(former.text[-1]) or UNSPACED.match(word.text[0]))
            joined += [_BETWEEN_WORDS, "+" if apart else "*", _escape(word.text)]
        return "".join(joined)

    def matches(self, searched: SearchedText) -> bool:
        """Return whether a text fulfils the term."""
        return self._is_in(searched) != self.negated

    def _is_in(self, searched: SearchedText) -> bool:
        if not all(word.matches(searched) for word in self.words):
            return False
        return self.pattern is None or re.search(self.pattern, searched.folded) is not None


def _escape(literal: str) -> str:
    return re.sub(r"([\x01-/:-@\[-`{-\x7f])", r"\\\1", literal)


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """What is searched for. Without alternatives nothing is found. ``source`` is the text of the search box."""

    source: str
    alternatives: tuple[tuple[Term, ...], ...]

    def matches(self, searched: SearchedText) -> bool:
        """Return whether a text matches: all terms of one alternative."""
        return any(all(term.matches(searched) for term in terms) for terms in self.alternatives)

    @property
    def positive_terms(self) -> list[Term]:
        """All terms that are to be found."""
        return [term for terms in self.alternatives for term in terms if not term.negated]


def parse_search(source: str) -> SearchQuery:
    """Return the text of a search box as a query: words, "phrases in quotes", OR, and -words that must be absent."""
    tokens = list(_TOKEN.finditer(source.translate(_QUOTATION_MARKS)))
    alternatives: list[list[Term]] = [[]]
    for number, token in enumerate(tokens):
        if (token["word"] or "").lower() == "or" and 0 < number < len(tokens) - 1:
            alternatives.append([])
        elif (term := _parse_term(token)) is not None:
            alternatives[-1].append(term)
    return SearchQuery(source, tuple(tuple(terms) for terms in alternatives if terms))


def _parse_term(token: re.Match[str]) -> Term | None:
    words = tuple(_words_of(token))
    # Two hyphens begin an option of a command, such as --verbose.
    negated = bool(token["minus"]) or re.match(r"-[^-]", token["word"] or "") is not None
    return Term(words, negated) if words else None


def _words_of(token: re.Match[str]) -> Iterator[Word]:
    if token["word"] is not None:
        # Here punctuation at the ends belongs to a sentence rather than to a name.
        texts = [fold(re.sub(r"^-(?=[^-])", "", token["word"])).strip(_EDGES)]
    else:
        texts = fold(token["phrase"]).split()
    for text in texts:
        word = parse_word(text)
        if word is not None:
            yield word
