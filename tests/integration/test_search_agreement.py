"""PostgreSQL and Python find the same texts, with the indexes and without them."""

# ruff: noqa: RUF001 - letters that look like others are part of the test

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, Integer, Text, bindparam, column, func, select, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import ARRAY, JSON

from mistral_api.conversations.search_conditions import has_new_columns
from mistral_api.conversations.search_query import SearchedText, parse_search
from mistral_api.conversations.search_text import search_columns
from mistral_api.database.tables.conversations import Message
from tests.support.conversations import start_conversation, user
from tests.support.searches import FOUND, NOT_FOUND

_ROWS = func.json_to_recordset(bindparam("rows", type_=JSON)).table_valued(
    column("number", Integer),
    column("search_text", Text(collation="C")),
    column("search_grams", ARRAY(Text(collation="C"))),
)
ROWS = _ROWS.render_derived(with_types=True)
# Both sides of each rule: short and long words, names, scripts with spaces and without, accents, marks, symbols.
_PIECES = (  # noqa: SIM905 - one a line is long, and so is this
    "a ab abc abcd py id userId HTTPServer v2 utf8 2024 main.py a_b snake_case /usr/lib x=1 c++ %_ \\ * ( [ . - ' \" | "
    "$ ^ {2} or OR école e\u0301 ß İ ı \ufb03 ф фи зебра "
    "живёт Αθήνα 中 中文 学习中文 。 "
    "， タワー \uff76\uff9e ชาว 한국어 \u1112\u1161 "
    "नमस्ते 🙂 → \u200d \u2026 \u201c \u2019 \u2014"
).split(" ")
_GAPS = st.sampled_from(["", "", " ", "\n ", ", ", "-", "\u00a0"])
_TEXTS = st.lists(st.tuples(st.sampled_from(_PIECES), _GAPS), max_size=8).map(
    lambda pairs: "".join(piece + gap for piece, gap in pairs)
)
_TERMS = st.sampled_from(["{}", "{}", '"{}"', "-{}", '-"{}"', "{} or"])


@st.composite
def _texts_and_search(draw: st.DrawFn) -> tuple[list[str], str]:
    """Draw texts, and the text of a search box: parts of them, so that much of it is found, with operators."""
    texts = draw(st.lists(_TEXTS, min_size=1, max_size=8))
    terms = []
    for _ in range(draw(st.integers(1, 3))):
        source = draw(st.sampled_from(texts) | _TEXTS)
        start = draw(st.integers(0, len(source)))
        terms.append(draw(_TERMS).format(source[start : start + draw(st.integers(1, 12))]))
    return texts, " ".join(terms)


@pytest.fixture(scope="module")
def connection(database_engine: Engine) -> Iterator[Connection]:
    with database_engine.connect() as opened:
        yield opened


def _found(connection: Connection, texts: Sequence[str], search: str) -> list[str]:
    """Return those of some texts that PostgreSQL finds."""
    query = parse_search(search)
    if not query.alternatives:
        return []
    rows = [{"number": number, **search_columns(each)} for number, each in enumerate(texts)]
    selected = select(ROWS.c.number).where(has_new_columns(ROWS.c, query)).order_by(ROWS.c.number)
    return [texts[number] for number in connection.scalars(selected, {"rows": rows})]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=_texts_and_search())
def test_postgresql_finds_what_python_finds(connection: Connection, drawn: tuple[list[str], str]) -> None:
    texts, search = drawn
    query = parse_search(search)
    assert _found(connection, texts, search) == [each for each in texts if query.matches(SearchedText(each))]


def test_postgresql_finds_the_table_of_languages_and_names(connection: Connection) -> None:
    assert [(each, search) for each, search in FOUND if not _found(connection, [each], search)] == []
    assert [(each, search) for each, search in NOT_FOUND if _found(connection, [each], search)] == []


def _explain(engine: Engine, search: str) -> tuple[list[str], str]:
    """Return the contents that a search of all messages finds where no table is read as a whole, and its plan."""
    selected = select(Message.content).where(has_new_columns(Message, parse_search(search)))
    with engine.connect() as opened:
        opened.execute(text("SET LOCAL enable_seqscan = off"))
        opened.execute(text("SET LOCAL enable_indexscan = off"))
        found = [str(content) for content in opened.scalars(selected)]
        compiled = selected.compile(dialect=postgresql.dialect())  # type: ignore[no-untyped-call]
        explained = opened.exec_driver_sql(f"EXPLAIN {compiled}", compiled.params)
        return found, "\n".join(row[0] for row in explained)


def test_indexes_find_the_table_of_languages_and_names(engine: Engine) -> None:
    texts = list(dict.fromkeys(each for each, _ in FOUND))
    start_conversation(engine, [user(each) for each in texts])
    for each, search in [*FOUND, *NOT_FOUND]:
        query = parse_search(search)
        if query.alternatives and query.positive_terms:
            found, plan = _explain(engine, search)
            assert sorted(found) == sorted(other for other in texts if query.matches(SearchedText(other)))
            assert (each in found) == ((each, search) in FOUND)
            assert "Bitmap Index Scan on ix_messages_search_" in plan
            assert "Seq Scan" not in plan
