"""A search query as conditions for PostgreSQL: the rules of ``search_query``, put so that the indexes can be used."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, and_, func, literal_column, not_, or_
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from mistral_api.conversations.search_query import SearchQuery, Term, Word
from mistral_api.database.tables.conversations import SearchMixin

# PostgreSQL's text search configuration that knows no language. A literal, since it would take a parameter for text.
_FORMER_CONFIGURATION: ColumnElement[Any] = literal_column("'simple'")


SearchedTable = type[SearchMixin] | ReadOnlyColumnCollection[str, Any]


def matches_query(table: SearchedTable, query: SearchQuery) -> ColumnElement[bool]:
    """Return the condition that a row of a table matches. A row without text never does."""
    return has_new_columns(table, query) | has_former_column(table, query)


def has_new_columns(table: SearchedTable, query: SearchQuery) -> ColumnElement[bool]:
    """Return the condition that a row matches by its folded text and its grams."""
    return or_(*(and_(*(_fulfils(table, term) for term in terms)) for terms in query.alternatives))


def has_former_column(table: SearchedTable, query: SearchQuery) -> ColumnElement[bool]:
    """Return the condition that a row whose new columns are not filled in yet matches by its words."""
    return table.search.bool_op("@@")(func.websearch_to_tsquery(_FORMER_CONFIGURATION, query.source))


def _fulfils(table: SearchedTable, term: Term) -> ColumnElement[bool]:
    conditions = list(_has_phrase(table, term) if term.pattern is not None else _has_word(table, term.words[0]))
    return not_(and_(*conditions)) if term.negated else and_(*conditions)


def _has_word(table: SearchedTable, word: Word) -> Iterator[ColumnElement[bool]]:
    if word.grams:
        yield _has_grams(table, word.grams)
    if word.has_trigram:
        yield _has_in_order(table, [word.text])
    elif not word.is_gram:
        # LIKE would read the whole trigram index where there is no trigram to look for.
        yield func.strpos(table.search_text, word.text) > 0


def _has_phrase(table: SearchedTable, term: Term) -> Iterator[ColumnElement[bool]]:
    grams = frozenset[str]().union(*(word.grams for word in term.words))
    if grams:
        yield _has_grams(table, grams)
    if any(word.has_trigram for word in term.words):
        # It says less than the regular expression and takes less time, so it is asked first.
        yield _has_in_order(table, [word.text for word in term.words])
    # Joined with nothing, so that the trigram index does not look for the many words that may match the pattern.
    yield table.search_text.concat("").regexp_match(term.pattern)


def _has_grams(table: SearchedTable, grams: frozenset[str]) -> ColumnElement[bool]:
    contained: ColumnElement[bool] = table.search_grams.contains(sorted(grams))
    return contained


def _has_in_order(table: SearchedTable, texts: Sequence[str]) -> ColumnElement[bool]:
    return table.search_text.like(f"%{'%'.join(map(_escape_like, texts))}%")


def _escape_like(literal: str) -> str:
    return re.sub(r"([\\%_])", r"\\\1", literal)
