"""Registration with Windows' Service Control Manager, where that refuses a part of it."""

from __future__ import annotations

import sys
from typing import Any

import pytest

if sys.platform != "win32":
    pytest.skip("the Service Control Manager is Windows'", allow_module_level=True)

import pywintypes
import win32service

from mistral_api.registration import windows
from mistral_api.registration.service import API

REFUSED = pywintypes.error(5, "ChangeServiceConfig2", "Access is denied.")


@pytest.mark.parametrize(("existing", "deleted"), [(None, ["new"]), ("old", [])])
def test_service_that_cannot_be_set_up_in_full_is_not_left_behind(
    monkeypatch: pytest.MonkeyPatch, existing: str | None, deleted: list[str]
) -> None:
    """One that was there before stays, with what could be changed."""
    gone: list[Any] = []

    def refuse(*_: Any) -> None:
        raise REFUSED

    monkeypatch.setattr(windows, "_open", lambda *_: existing)
    for name, function in (
        ("CreateService", lambda *_: "new"),
        ("ChangeServiceConfig", lambda *_: None),
        ("ChangeServiceConfig2", refuse),
        ("DeleteService", gone.append),
    ):
        monkeypatch.setattr(win32service, name, function)
    manager: Any = object()
    with pytest.raises(pywintypes.error):
        windows._register(manager, API)
    assert gone == deleted
