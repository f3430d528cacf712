"""Query strings: text becomes numbers and ids, or is refused."""

from typing import Any
from uuid import UUID

import pytest

from mistral_api.errors import InvalidRequest
from mistral_api.wire import ConversationListQuery, ConversationQuery, StatsQuery, load, valid_session_id
from mistral_api.wire.request_schema import RequestSchema

MESSAGE = "01890a5d-ac96-774b-bcce-b302099a8057"


def test_empty_query_has_the_default_values() -> None:
    assert load(ConversationQuery(), {}) == {"limit": 50}
    assert load(ConversationListQuery(), {}) == {"limit": 20}
    assert load(StatsQuery(), {}) == {"hours": 24}


def test_query_text_becomes_values_and_unknown_arguments_are_dropped() -> None:
    given = {"limit": "500", "before": MESSAGE, "after": MESSAGE.upper(), "utm_source": "x"}
    assert load(ConversationQuery(), given) == {"limit": 500, "before": UUID(MESSAGE), "after": UUID(MESSAGE)}
    listed = {"limit": "1", "after": "a:b", "q": "cats", "since": "1700000000.5"}
    assert load(ConversationListQuery(), listed) == {"limit": 1, "after": "a:b", "q": "cats", "since": 1700000000.5}
    assert load(StatsQuery(), {"hours": "8760"}) == {"hours": 8760}


@pytest.mark.parametrize(
    ("schema", "name", "text", "code"),
    [
        (ConversationQuery(), "limit", "0", "integer_below_min_value"),
        (ConversationQuery(), "limit", "501", "integer_above_max_value"),
        (ConversationQuery(), "limit", "9" * 20, "integer_above_max_value"),
        (ConversationQuery(), "limit", "9" * 5000, "invalid_type"),
        (ConversationQuery(), "limit", "", "invalid_type"),
        (ConversationQuery(), "limit", "many", "invalid_type"),
        (ConversationQuery(), "limit", "1.5", "invalid_type"),
        (ConversationQuery(), "limit", "1_0", "invalid_type"),
        (ConversationQuery(), "limit", "٣", "invalid_type"),
        (ConversationQuery(), "before", "1", "invalid_value"),
        (ConversationListQuery(), "limit", "101", "integer_above_max_value"),
        (ConversationListQuery(), "after", "a b", "invalid_value"),
        (ConversationListQuery(), "q", "", "invalid_value"),
        (ConversationListQuery(), "q", "x" * 201, "string_above_max_length"),
        (ConversationListQuery(), "since", "yesterday", "invalid_type"),
        (ConversationListQuery(), "since", "nan", "invalid_type"),
        (ConversationListQuery(), "since", "-1", "decimal_below_min_value"),
        (ConversationListQuery(), "since", "1e300", "decimal_above_max_value"),
        (StatsQuery(), "hours", "8761", "integer_above_max_value"),
        (StatsQuery(), "hours", "-24", "integer_below_min_value"),
    ],
)
def test_bad_query_argument_is_refused_by_name(schema: RequestSchema[Any], name: str, text: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        load(schema, {name: text})
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, name, code)


@pytest.mark.parametrize("text", ["a", "A-1_b.c:d", "x" * 128])
def test_session_id_of_allowed_characters_is_valid(text: str) -> None:
    assert valid_session_id(text)


@pytest.mark.parametrize("text", ["", "a b", "a/b", "é", "٣", "a\n", "x" * 129])
def test_session_id_with_other_characters_is_invalid(text: str) -> None:
    assert not valid_session_id(text)
