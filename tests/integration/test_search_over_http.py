"""``GET /v1/conversations?q=`` as clients use it: languages, names, and where it hit."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
import requests

from tests.support.processes import Server
from tests.support.searches import FOUND, NOT_FOUND

TEXTS = list(dict.fromkeys(each for each, _ in [*FOUND, *NOT_FOUND]))


@pytest.fixture(scope="module")
def conversations(server: Server) -> dict[str, str]:
    """The ids of conversations with one message each, by its text."""
    made = {}
    for each in TEXTS:
        items = [{"role": "user", "content": each}]
        response = requests.post(f"{server.url}/v1/conversations", json={"items": items}, timeout=30)
        assert response.status_code == 200, response.text
        made[each] = response.json()["id"]
    return made


def _search(server: Server, search: str) -> dict[str, Any]:
    response = requests.get(f"{server.url}/v1/conversations", params={"q": search, "limit": "100"}, timeout=30)
    assert response.status_code == 200, response.text
    return {each["id"]: each for each in response.json()["data"]}


def test_table_of_languages_and_names_is_found_with_its_hits(server: Server, conversations: dict[str, str]) -> None:
    for each, search in FOUND:
        found = _search(server, search)
        assert conversations[each] in found, search
        (match,) = [match for match in found[conversations[each]]["matches"] if match["role"] == "user"]
        assert match["snippet"].count("<mark>") == match["snippet"].count("</mark>") > 0


def test_what_is_not_there_is_not_found(server: Server, conversations: dict[str, str]) -> None:
    for each, search in NOT_FOUND:
        if search:
            assert conversations[each] not in _search(server, search), search


def test_match_names_a_message_of_the_conversation(server: Server) -> None:
    word = f"quagga{uuid4().hex}"
    created = requests.post(
        f"{server.url}/v1/conversations",
        json={"items": [{"role": "user", "content": f"<img src=x onerror=alert(1)> {word[2:]}"}]},
        timeout=30,
    ).json()
    requests.patch(f"{server.url}/v1/conversations/{created['id']}", json={"title": f"The {word}"}, timeout=30)
    found = _search(server, word[3:-2].upper())
    title, message = found[created["id"]]["matches"]
    assert title == {"message_id": None, "role": None, "snippet": f"The qua<mark>{word[3:-2]}</mark>{word[-2:]}"}
    stored = requests.get(f"{server.url}/v1/conversations/{created['id']}", timeout=30).json()["messages"]
    assert [message["message_id"]] == [each["id"] for each in stored]
    assert message["snippet"] == f"&lt;img src=x onerror=alert(1)&gt; a<mark>{word[3:-2]}</mark>{word[-2:]}"


def test_list_without_a_search_has_no_matches(server: Server, conversations: dict[str, str]) -> None:
    listed = requests.get(f"{server.url}/v1/conversations", timeout=30).json()["data"]
    assert listed
    assert all("matches" not in each for each in listed)
