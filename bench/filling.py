"""Fill a database to the size that years of use produce, with rows made from numbers."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice

from sqlalchemy import Connection, Engine, text

from bench.corpus import make_text
from mistral_api.analytics.periods import next_month, start_of
from mistral_api.analytics.rebuild import rebuild_rollups
from mistral_api.conversations.search_text import search_columns
from mistral_api.database.deadlines import without_deadline
from mistral_api.database.tables.base import recordset, rows_as_json
from mistral_api.database.tables.conversations import Message
from mistral_api.delivery.partitions import create_partitions

OWNER = "local"
# The number of long conversations and their messages; all other conversations have SHORT_MESSAGES messages.
LONG_CONVERSATIONS, LONG_MESSAGES, SHORT_MESSAGES = 50, 1000, 20

_USAGE = """
INSERT INTO api_usage (request_id, created_at, endpoint, status, owner, session_id, model, stream, prompt_tokens,
    cached_tokens, completion_tokens, latency_ms, time_to_first_token_ms, tokens_per_second, finish_reason)
SELECT gen_random_uuid(), :start + random() * (CAST(:end AS timestamptz) - CAST(:start AS timestamptz)),
    (ARRAY['/v1/chat/completions', '/v1/completions'])[1 + (random() < 0.2)::int],
    (ARRAY[200, 200, 200, 200, 200, 200, 200, 499, 400, 503])[1 + floor(random() * 10)],
    (ARRAY['local', 'team', 'robot'])[1 + floor(random() * 3)],
    'session-' || floor(random() * :sessions), (ARRAY['mistral-7b-instruct', 'demo'])[1 + (random() < 0.3)::int],
    random() < 0.7, floor(random() * 2000), floor(random() * 1000), floor(random() * 500),
    exp(random() * 6 + 3), exp(random() * 4 + 2), 10 + random() * 90, 'stop'
FROM generate_series(1, :rows)
"""
_CONVERSATIONS = """
INSERT INTO conversations (id, owner, session_id, title, search_text, search_grams, head_id, message_count, created_at,
    updated_at)
SELECT md5('c' || c)::uuid, :owner, 'session-' || c, 'Conversation ' || c, 'conversation ' || c, '{}',
    md5(c || '-' || count)::uuid, count, now() - c * interval '1 minute', now() - c * interval '1 minute'
FROM (SELECT c, CASE WHEN c <= :long THEN :long_messages ELSE :short_messages END AS count
      FROM generate_series(1, :conversations) AS c) AS planned
"""
_MESSAGES = f"""
INSERT INTO messages (id, conversation_id, parent_id, role, content, digest, depth, search_text, search_grams, status,
    request_id, model, completion_tokens, created_at)
SELECT md5(c || '-' || n)::uuid, md5('c' || c)::uuid, CASE WHEN n > 1 THEN md5(c || '-' || n - 1)::uuid END,
    CASE WHEN n % 2 = 1 THEN 'user' ELSE 'assistant' END, to_jsonb(words), md5(c || '+' || n)::uuid,
    n - 1, search_text, search_grams, 'complete', c || '-' || n, CASE WHEN n % 2 = 0 THEN 'demo' END,
    CASE WHEN n % 2 = 0 THEN 40 END, now() - c * interval '1 minute'
FROM {recordset(Message, ["search_text", "search_grams"], more=["c int", "n int", "words text"])}
"""
_SEARCH_INDEXES = """
SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'messages' AND indexdef LIKE '%USING gin%'
"""
BATCH = 5000


def fill_database(engine: Engine, usage_rows: int, messages: int) -> int:
    """Fill an empty database and return the number of conversations. Usage is spread over the last year."""
    conversations = LONG_CONVERSATIONS + max(0, messages - LONG_CONVERSATIONS * LONG_MESSAGES) // SHORT_MESSAGES
    with _timed(f"{usage_rows} usage rows"):
        _fill_usage(engine, usage_rows, conversations)
    with _timed("summing them up (mistral-api stats rebuild)"):
        rebuild_rollups(engine)
    with _timed(f"{conversations} conversations with {messages} messages"), engine.begin() as connection:
        _fill_conversations(connection, conversations)
    with _timed("VACUUM ANALYZE"):
        _vacuum(engine)
    return conversations


@contextmanager
def _timed(what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    print(f"filling: {what}: {time.monotonic() - began:.0f} s", flush=True)


def _fill_usage(engine: Engine, rows: int, sessions: int) -> None:
    end = datetime.now(UTC)
    month, starts = start_of("month", end.replace(year=end.year - 1)), []
    while month <= end:
        starts.append(month)
        month = next_month(month)
    for start in starts:
        span = {"start": start, "end": min(end, next_month(start)), "rows": rows // len(starts), "sessions": sessions}
        with engine.begin() as connection, without_deadline(connection):
            create_partitions(connection, [start])
            connection.execute(text(_USAGE), span)


def _fill_conversations(connection: Connection, conversations: int) -> None:
    """Insert conversations. The indexes of the search are created at the end, which is faster than updating them."""
    long = {"long": LONG_CONVERSATIONS, "long_messages": LONG_MESSAGES, "short_messages": SHORT_MESSAGES}
    with without_deadline(connection):
        indexes = connection.execute(text(_SEARCH_INDEXES)).all()
        for index in indexes:
            connection.execute(text(f"DROP INDEX {index.indexname}"))
        connection.execute(text(_CONVERSATIONS), long | {"owner": OWNER, "conversations": conversations})
        rows = _message_rows(conversations)
        while batch := list(islice(rows, BATCH)):
            connection.execute(text(_MESSAGES), {"rows": rows_as_json(batch)})
        for index in indexes:
            with _timed(f"the index {index.indexname}"):
                connection.execute(text(index.indexdef))
            size = connection.scalar(text("SELECT pg_relation_size(:name)"), {"name": index.indexname}) or 0
            print(f"filling: the index {index.indexname}: {size / 2**20:.0f} MB", flush=True)


def _message_rows(conversations: int) -> Iterator[dict[str, object]]:
    source = random.Random(1)  # noqa: S311 - the same texts each time
    for conversation in range(1, conversations + 1):
        for number in range(1, (LONG_MESSAGES if conversation <= LONG_CONVERSATIONS else SHORT_MESSAGES) + 1):
            words = make_text(source)
            yield {"c": conversation, "n": number, "words": words, **search_columns(words)}


def _vacuum(engine: Engine) -> None:
    """Run VACUUM, which PostgreSQL allows only outside a transaction."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection, without_deadline(connection):
        connection.execute(text("VACUUM ANALYZE"))
