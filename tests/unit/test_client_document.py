"""docs/clients.md has what the tests of clients take from it, wherever those cannot run."""

from __future__ import annotations

import json

import pytest
import yaml

from tests.support.documented_snippets import exported, snippet

URL, MODEL = "http://127.0.0.1:1", "some-model"


@pytest.mark.parametrize("heading", ["Claude Code", "qwen-code", "aider", "Open WebUI"])
def test_documented_variables_name_server_and_key(heading: str) -> None:
    variables = exported(heading, URL, MODEL)
    assert any(value.startswith(URL) for value in variables.values())
    assert "any" in variables.values()


def test_documented_configurations_are_valid_and_name_server_and_model() -> None:
    opencode = json.loads(snippet("opencode", "json", URL, MODEL))
    assert list(opencode["provider"]["local"]["models"]) == [MODEL]
    assert opencode["provider"]["local"]["options"]["baseURL"] == f"{URL}/v1"
    (model,) = yaml.safe_load(snippet("Continue", "yaml", URL, MODEL))["models"]
    assert (model["model"], model["apiBase"]) == (MODEL, f"{URL}/v1")
    assert snippet("Vercel's AI SDK", "js", URL, MODEL).count(MODEL) == 4
