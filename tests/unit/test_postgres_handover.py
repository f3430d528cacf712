"""Whether the embedded PostgreSQL outlives the process that started it, on a system that would end it with that one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from mistral_api.embedded.postgres import server as module
from mistral_api.embedded.postgres.cluster import Cluster
from mistral_api.embedded.postgres.files import Layout
from mistral_api.embedded.postgres.server import EmbeddedPostgres
from mistral_api.system.process_lock import ProcessLock


@pytest.mark.parametrize("others", [True, False])
def test_server_is_released_before_its_starter_leaves_it_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: bool
) -> None:
    done: list[str] = []
    monkeypatch.setattr(module, "outlive_this_process", lambda: done.append("released"))
    cluster = SimpleNamespace(
        url=lambda: "", superuser_url=lambda: "", running=True, stop=lambda: done.append("stopped")
    )
    layout = SimpleNamespace(home=tmp_path, owner_file=tmp_path / "owner.json")
    postgres = EmbeddedPostgres(cast("Layout", layout), cast("Cluster", cluster), owned=True)
    other = ProcessLock(tmp_path) if others else None
    postgres.stop()
    if other is not None:
        other.close()
    assert done == (["released"] if others else ["stopped"])
