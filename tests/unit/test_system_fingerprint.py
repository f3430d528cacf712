"""What responses say of what has generated them: the engine, its version and its configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from mistral_api.engine_builds.build_store import Build
from mistral_api.supervisor.engine import Engine, bundled_engine, system_fingerprint

CONFIGURATION = "3f2a9c01de" + "0" * 54


@pytest.mark.parametrize(
    ("engine", "fingerprint"),
    [
        (Engine("bundled", (), "xllamacpp 2026.10.11549"), "xllamacpp-2026.10.11549-3f2a9c01de"),
        (bundled_engine(Build("cu128", "2026.10.11549", Path("x"))), "xllamacpp-2026.10.11549-cu128-3f2a9c01de"),
        (Engine("llama-server", (), "6500 (1a2b3c4)"), "llama-server-6500-1a2b3c4-3f2a9c01de"),
        (Engine("llama-server", (), None), "llama-server-3f2a9c01de"),
        (Engine("llama-server", (), '6500 "quoted", \n'), "llama-server-6500-quoted-3f2a9c01de"),
    ],
)
def test_fingerprint_names_the_engine_its_version_and_its_configuration(engine: Engine, fingerprint: str) -> None:
    assert system_fingerprint(engine, CONFIGURATION) == fingerprint
