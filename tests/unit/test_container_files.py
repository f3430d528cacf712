"""``deploy/Dockerfile``, ``deploy/compose.yaml`` and what goes with them, as far as no Docker is needed."""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from mistral_api.settings import Settings, setting_fields, settings_from
from tests.support.processes import ROOT

DEPLOY = ROOT / "deploy"
SETTINGS = {name for name, _ in setting_fields()}
# Variables of the Dockerfile and of compose.yaml that are no settings of ours.
OTHER_VARIABLES = {"PATH", "PYTHONDONTWRITEBYTECODE", "PIP_NO_CACHE_DIR", "DEBIAN_FRONTEND"}
COMPOSE_VARIABLES = {"POSTGRES_PASSWORD", "BASE_IMAGE"}


def _instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


INSTRUCTIONS = _instructions()


def _compose() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return content


def _last(word: str) -> str:
    return [rest for name, rest in INSTRUCTIONS if name == word][-1]


def _environment(rest: str) -> dict[str, str]:
    return dict(word.split("=", 1) for word in shlex.split(rest))


def _example_variables() -> dict[str, str]:
    lines = (DEPLOY / "compose.env.example").read_text().splitlines()
    return dict(line.removeprefix("# ").split("=", 1) for line in lines if re.match(r"(# )?[A-Z_]+=", line))


@pytest.mark.parametrize(
    "source",
    [
        source
        for word, rest in INSTRUCTIONS
        if word == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    ],
)
def test_everything_that_is_copied_is_there_and_sent_to_the_builder(source: str) -> None:
    assert (ROOT / source).exists()
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert any(fnmatch.fnmatch(source, pattern) or source.startswith(f"{pattern}/") for pattern in kept)


def test_no_secret_and_no_data_are_sent_to_the_builder() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    assert not {"!.env", "!var", "!deploy", "!.venv", "!models"} & set(lines)


def test_container_runs_as_an_account_without_privileges() -> None:
    words = [word for word, _ in INSTRUCTIONS]
    assert _last("USER") == "mistral-api"
    assert words.index("USER") > max(index for index, word in enumerate(words) if word == "RUN")


def test_processes_get_signals_themselves() -> None:
    assert json.loads(_last("ENTRYPOINT")) == ["tini", "--"]
    assert json.loads(_last("CMD")) == ["python", "-m", "mistral_api.serving"]
    assert json.loads(_last("HEALTHCHECK").partition("CMD ")[2])[0] == "python"
    assert _last("STOPSIGNAL") == "SIGTERM"


def test_settings_of_the_image_are_known_and_allowed() -> None:
    variables: dict[str, str] = {}
    for word, rest in INSTRUCTIONS:
        if word == "ENV":
            variables |= _environment(rest)
    ours = {name: value for name, value in variables.items() if name not in OTHER_VARIABLES}
    assert set(ours) <= SETTINGS
    assert settings_from(ours).data_dir == Path(_last("VOLUME"))
    assert _last("EXPOSE") == ours["API_PORT"] == str(Settings().api_port)


def test_settings_in_compose_are_known_and_allowed() -> None:
    service = _compose()["services"]["api"]
    values = {
        name: re.sub(r"\$\{POSTGRES_PASSWORD:\?[^}]*\}", "secret", str(value))
        for name, value in service["environment"].items()
    }
    settings = settings_from(values)
    assert set(values) <= SETTINGS
    assert service["volumes"][0] == f"data:{settings.data_dir}"
    assert service["ports"] == [f"127.0.0.1:9000:{settings.api_port}"]


def test_compose_gives_the_server_time_to_stop_and_restarts_it() -> None:
    services = _compose()["services"]
    seconds = {name: int(service["stop_grace_period"].removesuffix("s")) for name, service in services.items()}
    assert seconds["api"] >= services["api"]["environment"]["SHUTDOWN_SECONDS"] + 30
    assert seconds["database"] > seconds["api"]
    assert {service["restart"] for service in services.values()} == {"unless-stopped"}


def test_api_starts_when_the_database_is_healthy_and_both_keep_their_data() -> None:
    compose = _compose()
    services = compose["services"]
    assert services["api"]["depends_on"] == {"database": {"condition": "service_healthy"}}
    assert services["database"]["healthcheck"]["test"][:2] == ["CMD", "pg_isready"]
    named = {volume.partition(":")[0] for service in services.values() for volume in service["volumes"]}
    assert named - set(compose["volumes"]) == {"../models"}


def test_compose_takes_no_variable_that_its_example_does_not_name() -> None:
    used = set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text()))
    example = _example_variables()
    assert used == COMPOSE_VARIABLES
    assert set(example) - COMPOSE_VARIABLES <= SETTINGS
    settings_from({name: value for name, value in example.items() if name in SETTINGS})


def test_secrets_are_in_no_file_that_is_kept() -> None:
    assert _example_variables()["POSTGRES_PASSWORD"] == ""
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()
    assert not re.search(r"PASSWORD: *[\w\"']", (DEPLOY / "compose.yaml").read_text())
