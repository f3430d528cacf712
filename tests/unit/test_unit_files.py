"""The text of the systemd unit files."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("systemd is Linux's", allow_module_level=True)

from mistral_api.registration.rehearsal import InstallEnvironment
from mistral_api.registration.service import API, SERVICES, SUPERVISOR, RegistrationError, Service
from mistral_api.registration.unit_files import TEMPORARY, origin_of, unit_text
from mistral_api.supervisor import process
from mistral_api.supervisor.engine import VERSION_TIMEOUT_SECONDS
from mistral_api.supervisor.slot_cache import STOP_SAVE_TIMEOUT_SECONDS

ACCOUNT = "mistral-api"
# The supervisor's own deadlines: one check in its loop, and saving caches plus stopping the server.
LOOP_SECONDS = VERSION_TIMEOUT_SECONDS
STOP_SECONDS = VERSION_TIMEOUT_SECONDS + STOP_SAVE_TIMEOUT_SECONDS + process.STOP_SECONDS + process.KILL_SECONDS


def _environment(
    project: str = "/opt/mistral",
    data_dir: str = "/srv/data",
    port: int = 9000,
    needed: tuple[Path, ...] = (),
    *,
    loopback: bool = True,
) -> InstallEnvironment:
    return InstallEnvironment(
        project=Path(project),
        python=Path(project, ".venv/bin/python"),
        data_dir=Path(data_dir),
        api_port=port,
        supervised=True,
        needed=needed,
        device_groups=("video", "render"),
        stays_on_loopback=loopback,
    )


def _directives(text: str) -> dict[str, str]:
    """Return every directive with its value; only Environment may occur more than once."""
    found: dict[str, str] = {}
    for name, value in re.findall(r"^([A-Za-z]+)=(.*)$", text, re.MULTILINE):
        assert name not in found or name == "Environment", name
        found[name] = f"{found.get(name, '')} {value}".strip()
    return found


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("account", [None, ACCOUNT])
def test_each_unit_has_a_watchdog_and_restarts_alone(service: Service, account: str | None) -> None:
    unit = _directives(unit_text(service, _environment(), account))
    assert (unit["Type"], unit["NotifyAccess"], unit["Restart"]) == ("notify", "main", "always")
    assert int(unit["WatchdogSec"]) > 2 * LOOP_SECONDS
    assert int(unit["TimeoutStopSec"]) > STOP_SECONDS
    assert (unit["KillMode"], unit["OOMPolicy"]) == ("mixed", "continue")
    assert unit["NoNewPrivileges"] == "yes"
    assert not {"Requires", "BindsTo", "PartOf"} & unit.keys()
    assert unit["WorkingDirectory"] == "/opt/mistral"
    assert unit["WantedBy"] == ("multi-user.target" if account else "default.target")


def test_supervisor_unit_is_not_restarted_after_a_fatal_exit() -> None:
    assert _directives(unit_text(SUPERVISOR, _environment(), None))["RestartPreventExitStatus"] == "2 3"


def test_api_unit_runs_api_only_and_stops_before_the_supervisor() -> None:
    unit = _directives(unit_text(API, _environment(), ACCOUNT))
    assert unit["ExecStart"] == '"/opt/mistral/.venv/bin/python" -m mistral_api.serving --api-only'
    assert "mistral-api-supervisor.service" in unit["After"]


def test_system_unit_has_an_account_and_writes_only_to_the_data_dir() -> None:
    unit = _directives(unit_text(SUPERVISOR, _environment(), ACCOUNT))
    assert (unit["User"], unit["SupplementaryGroups"]) == ("mistral-api", "video render")
    assert unit["ProtectSystem"] == "strict"
    assert _directives(unit_text(API, _environment(), ACCOUNT))["ReadWritePaths"] == '"/srv/data"'
    assert (unit["PrivateTmp"], unit["ProtectHome"], unit["CapabilityBoundingSet"]) == ("yes", "yes", "")


def test_model_server_writes_no_more_than_status_logs_and_caches_and_sees_no_text() -> None:
    unit = _directives(unit_text(SUPERVISOR, _environment(), ACCOUNT))
    written = ("run", "logs", "slots", "embedding-server-slots", "cache")
    assert unit["ReadWritePaths"] == " ".join(f'"-/srv/data/{name}"' for name in written)
    assert unit["InaccessiblePaths"] == '"-/srv/data/journal" "-/srv/data/postgres"'
    assert (unit["ProtectProc"], unit["RemoveIPC"]) == ("invisible", "yes")


def test_model_server_has_no_network_but_loopback_unless_a_setting_needs_another_machine() -> None:
    unit = _directives(unit_text(SUPERVISOR, _environment(), ACCOUNT))
    assert (unit["IPAddressDeny"], unit["IPAddressAllow"]) == ("any", "localhost")
    for service, loopback in ((SUPERVISOR, False), (API, True)):
        assert "IPAddressDeny" not in _directives(unit_text(service, _environment(loopback=loopback), ACCOUNT))


@pytest.mark.parametrize("service", SERVICES)
def test_system_unit_leaves_gpu_devices_reachable(service: Service) -> None:
    unit = _directives(unit_text(service, _environment(), ACCOUNT))
    assert not {"PrivateDevices", "DevicePolicy", "DeviceAllow", "ProtectClock"} & unit.keys()


def test_supervisor_unit_lets_gpu_drivers_compile() -> None:
    unit = _directives(unit_text(SUPERVISOR, _environment(), ACCOUNT))
    assert "MemoryDenyWriteExecute" not in unit
    assert unit["SystemCallFilter"].startswith("~")
    assert '"CUDA_CACHE_PATH=/srv/data/cache/cuda"' in unit["Environment"]
    assert _directives(unit_text(API, _environment(), ACCOUNT))["MemoryDenyWriteExecute"] == "yes"


@pytest.mark.parametrize("place", ["/home/me/mistral", "/root/mistral"])
def test_system_unit_reads_home_only_when_its_files_are_there(place: str) -> None:
    for found in (
        _environment(project=place),
        _environment(data_dir=place),
        _environment(needed=(Path(place, "model.gguf"),)),
    ):
        assert _directives(unit_text(API, found, ACCOUNT))["ProtectHome"] == "read-only"


def test_paths_hidden_by_a_private_tmp_are_refused(tmp_path: Path) -> None:
    link = tmp_path / "model.gguf"
    link.symlink_to(TEMPORARY[1] / "model.gguf")
    for found in (
        _environment(project=f"{TEMPORARY[0]}/p"),
        _environment(data_dir=f"{TEMPORARY[1]}/d"),
        _environment(needed=(link,)),
    ):
        with pytest.raises(RegistrationError, match="a place for temporary files"):
            unit_text(API, found, ACCOUNT)
        assert unit_text(API, found, None)


def test_user_unit_has_no_directives_that_need_root() -> None:
    unit = _directives(unit_text(SUPERVISOR, _environment(), None))
    assert (
        not {"User", "ProtectSystem", "PrivateTmp", "CapabilityBoundingSet", "ReadWritePaths", "IPAddressDeny"}
        & unit.keys()
    )


def test_privileged_api_port_needs_one_capability() -> None:
    api = _directives(unit_text(API, _environment(port=443), ACCOUNT))
    assert api["AmbientCapabilities"] == api["CapabilityBoundingSet"] == "CAP_NET_BIND_SERVICE"
    assert "AmbientCapabilities" not in _directives(unit_text(SUPERVISOR, _environment(port=443), ACCOUNT))
    assert "AmbientCapabilities" not in _directives(unit_text(API, _environment(port=0), ACCOUNT))


def test_spaces_percent_and_dollar_signs_are_escaped_for_systemd() -> None:
    unit = _directives(unit_text(SUPERVISOR, _environment("/opt/my 100% $HOME", "/srv/my %h"), ACCOUNT))
    assert unit["WorkingDirectory"] == "/opt/my 100%% $HOME"
    assert unit["ExecStart"] == '"/opt/my 100%% $HOME/.venv/bin/python" -m mistral_api.supervisor'
    assert unit["InaccessiblePaths"] == '"-/srv/my %%h/journal" "-/srv/my %%h/postgres"'
    assert '"XDG_CACHE_HOME=/srv/my %%h/cache"' in unit["Environment"]


@pytest.mark.parametrize("path", ["/srv/a\nExecStartPre=/bin/evil", '/srv/a"b', "/srv/a\\", "/srv/a "])
def test_path_that_a_unit_file_cannot_contain_is_refused(path: str) -> None:
    with pytest.raises(RegistrationError, match="cannot be written into a unit file"):
        unit_text(API, _environment(data_dir=path), ACCOUNT)
    with pytest.raises(RegistrationError, match="cannot be written into a unit file"):
        unit_text(API, _environment(project=path), None)


@pytest.mark.parametrize("account", [None, ACCOUNT])
@pytest.mark.parametrize("line_break", ["\n", "\r", "\u2028", "\x85"])
def test_line_break_in_data_dir_is_refused_in_every_unit(account: str | None, line_break: str) -> None:
    with pytest.raises(RegistrationError, match="cannot be written into a unit file"):
        unit_text(API, _environment(data_dir=f"/srv/a{line_break}ExecStartPre=/bin/evil"), account)


def test_user_unit_names_a_data_dir_with_quotes_in_its_comment_alone() -> None:
    text = unit_text(API, _environment(data_dir="/srv/it's"), None)
    assert [line for line in text.splitlines() if "it's" in line] == ["# Data: /srv/it's"]


def test_unit_file_names_its_project_and_data_dir() -> None:
    text = unit_text(API, _environment(), None)
    assert origin_of(text) == ("/opt/mistral", "/srv/data")
    assert not origin_of("[Unit]\nDescription=somebody else's\n")
