"""What the systemd units say."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("systemd is Linux's", allow_module_level=True)

from mistral_api.registration.environment import InstallEnvironment
from mistral_api.registration.service import API, SERVICES, SUPERVISOR, RegistrationError, Service
from mistral_api.registration.unit_files import TEMPORARY, SystemAccount, data_of, is_ours, project_of, unit_text
from mistral_api.supervisor import process
from mistral_api.supervisor.engine import VERSION_SECONDS
from mistral_api.supervisor.slot_cache import STOP_SAVE_SECONDS

ACCOUNT = SystemAccount("mistral-api", ["video", "render"])
# The supervisor's own deadlines: a check in its loop; saving caches, ending the server.
LOOP_SECONDS = VERSION_SECONDS
STOP_SECONDS = VERSION_SECONDS + STOP_SAVE_SECONDS + process.STOP_SECONDS + process.KILL_SECONDS


def _found(
    project: str = "/opt/mistral", data_dir: str = "/srv/data", port: int = 9000, needed: tuple[Path, ...] = ()
) -> InstallEnvironment:
    return InstallEnvironment(
        project=Path(project),
        python=Path(project, ".venv/bin/python"),
        data_dir=Path(data_dir),
        api_port=port,
        supervised=True,
        needed=needed,
    )


def _directives(text: str) -> dict[str, str]:
    """Every directive with its value; one that is given twice is an error, but for Environment."""
    found: dict[str, str] = {}
    for name, value in re.findall(r"^([A-Za-z]+)=(.*)$", text, re.MULTILINE):
        assert name not in found or name == "Environment", name
        found[name] = f"{found.get(name, '')} {value}".strip()
    return found


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("account", [None, ACCOUNT])
def test_each_process_is_watched_and_restarted_by_itself(service: Service, account: SystemAccount | None) -> None:
    unit = _directives(unit_text(service, _found(), account))
    assert (unit["Type"], unit["NotifyAccess"], unit["Restart"]) == ("notify", "main", "always")
    assert int(unit["WatchdogSec"]) > 2 * LOOP_SECONDS
    assert int(unit["TimeoutStopSec"]) > STOP_SECONDS
    assert (unit["KillMode"], unit["OOMPolicy"]) == ("mixed", "continue")
    assert unit["NoNewPrivileges"] == "yes"
    assert not {"Requires", "BindsTo", "PartOf"} & unit.keys()
    assert unit["WorkingDirectory"] == "/opt/mistral"
    assert unit["WantedBy"] == ("multi-user.target" if account else "default.target")


def test_a_supervisor_that_has_given_up_is_left_alone() -> None:
    assert _directives(unit_text(SUPERVISOR, _found(), None))["RestartPreventExitStatus"] == "2 3"


def test_the_api_runs_alone_and_stops_before_the_supervisor() -> None:
    unit = _directives(unit_text(API, _found(), ACCOUNT))
    assert unit["ExecStart"] == '"/opt/mistral/.venv/bin/python" -m mistral_api.serving --api-only'
    assert "mistral-api-supervisor.service" in unit["After"]


def test_a_system_unit_has_an_account_and_writes_to_its_data_alone() -> None:
    unit = _directives(unit_text(SUPERVISOR, _found(), ACCOUNT))
    assert (unit["User"], unit["SupplementaryGroups"]) == ("mistral-api", "video render")
    assert (unit["ProtectSystem"], unit["ReadWritePaths"]) == ("strict", '"/srv/data"')
    assert (unit["PrivateTmp"], unit["ProtectHome"], unit["CapabilityBoundingSet"]) == ("yes", "yes", "")


@pytest.mark.parametrize("service", SERVICES)
def test_graphics_cards_stay_reachable(service: Service) -> None:
    unit = _directives(unit_text(service, _found(), ACCOUNT))
    assert not {"PrivateDevices", "DevicePolicy", "DeviceAllow", "ProtectClock"} & unit.keys()


def test_drivers_of_the_model_server_may_compile() -> None:
    unit = _directives(unit_text(SUPERVISOR, _found(), ACCOUNT))
    assert "MemoryDenyWriteExecute" not in unit
    assert unit["SystemCallFilter"].startswith("~")
    assert '"CUDA_CACHE_PATH=/srv/data/cache/cuda"' in unit["Environment"]
    assert _directives(unit_text(API, _found(), ACCOUNT))["MemoryDenyWriteExecute"] == "yes"


@pytest.mark.parametrize("place", ["/home/me/mistral", "/root/mistral"])
def test_homes_are_readable_only_where_something_of_ours_lies_in_one(place: str) -> None:
    for found in (_found(project=place), _found(data_dir=place), _found(needed=(Path(place, "model.gguf"),))):
        assert _directives(unit_text(API, found, ACCOUNT))["ProtectHome"] == "read-only"


def test_what_a_private_tmp_would_hide_is_refused(tmp_path: Path) -> None:
    link = tmp_path / "model.gguf"
    link.symlink_to(TEMPORARY[1] / "model.gguf")
    for found in (_found(project=f"{TEMPORARY[0]}/p"), _found(data_dir=f"{TEMPORARY[1]}/d"), _found(needed=(link,))):
        with pytest.raises(RegistrationError, match="a place for temporary files"):
            unit_text(API, found, ACCOUNT)
        assert unit_text(API, found, None)


def test_a_user_unit_asks_for_nothing_that_a_user_may_not_have() -> None:
    unit = _directives(unit_text(SUPERVISOR, _found(), None))
    assert not {"User", "ProtectSystem", "PrivateTmp", "CapabilityBoundingSet", "ReadWritePaths"} & unit.keys()


def test_a_port_of_root_takes_one_capability() -> None:
    api = _directives(unit_text(API, _found(port=443), ACCOUNT))
    assert api["AmbientCapabilities"] == api["CapabilityBoundingSet"] == "CAP_NET_BIND_SERVICE"
    assert "AmbientCapabilities" not in _directives(unit_text(SUPERVISOR, _found(port=443), ACCOUNT))
    assert "AmbientCapabilities" not in _directives(unit_text(API, _found(port=0), ACCOUNT))


def test_spaces_percent_and_dollar_signs_are_written_as_systemd_reads_them() -> None:
    unit = _directives(unit_text(SUPERVISOR, _found("/opt/my 100% $HOME", "/srv/my %h"), ACCOUNT))
    assert unit["WorkingDirectory"] == "/opt/my 100%% $HOME"
    assert unit["ExecStart"] == '"/opt/my 100%% $HOME/.venv/bin/python" -m mistral_api.supervisor'
    assert unit["ReadWritePaths"] == '"/srv/my %%h"'
    assert '"XDG_CACHE_HOME=/srv/my %%h/cache"' in unit["Environment"]


@pytest.mark.parametrize("path", ["/srv/a\nExecStartPre=/bin/evil", '/srv/a"b', "/srv/a\\", "/srv/a "])
def test_a_path_that_a_unit_cannot_hold_is_refused(path: str) -> None:
    with pytest.raises(RegistrationError, match="cannot be written into a unit file"):
        unit_text(API, _found(data_dir=path), ACCOUNT)
    with pytest.raises(RegistrationError, match="cannot be written into a unit file"):
        unit_text(API, _found(project=path), None)


def test_a_unit_says_whose_it_is_and_where_the_data_lie() -> None:
    text = unit_text(API, _found(), None)
    assert is_ours(text)
    assert (project_of(text), data_of(text)) == ("/opt/mistral", "/srv/data")
    assert not is_ours("[Unit]\nDescription=somebody else's\n")
