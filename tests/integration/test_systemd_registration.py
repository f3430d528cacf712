"""``mistral-api service`` with real files and rehearsals; a fake systemctl records its arguments.

No systemd runs where the tests run, and none may be started. ``systemd-analyze verify`` reads the written units.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("systemd is Linux's", allow_module_level=True)

import pwd

from mistral_api.embedded.postgres.account import ACCOUNT_NAME, Account
from mistral_api.registration import unit_files
from mistral_api.registration.accounts import own_account
from mistral_api.registration.rehearsal import rehearse_environment
from mistral_api.registration.service import RegistrationError, exit_code
from mistral_api.registration.systemd import SystemdRegistration
from mistral_api.settings import setting_fields
from mistral_api.system.exit_codes import ServiceExitCode
from mistral_api.system.project import PROJECT_VARIABLE
from tests.support.processes import ROOT, clean_environment, skip_unless_ci

pytestmark = pytest.mark.slow

SYSTEMCTL = """\
#!/bin/sh
echo "$*" >> "$STAND_IN/calls"
case "$*" in
  *is-system-running*) cat "$STAND_IN/system" ;;
  *show*) cat "$STAND_IN/shown" ;;
  *disable*) ;;
  *enable*) if [ -e "$STAND_IN/refuses" ]; then echo "Failed to enable unit: no" >&2; exit 1; fi ;;
esac
"""
SECRET = "s3cret-of-the-database"
API_UNIT, SUPERVISOR_UNIT = "mistral-api.service", "mistral-api-supervisor.service"
BOTH = {API_UNIT, SUPERVISOR_UNIT}
FOREIGN_UID = 54321
RUNNING, NOT_RUNNING, UNKNOWN = ServiceExitCode

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away and install system units")


@dataclass
class Machine:
    """A project, a unit folder and a fake systemctl for one test."""

    project: Path
    units: Path
    stand_in: Path

    def registration(self, *, user: bool = True, project: Path | None = None) -> SystemdRegistration:
        folder = self.units if not user else None
        return SystemdRegistration(user=user, account=None, folder=folder, project=project or self.project)

    def configure(self, **settings: object) -> None:
        lines = [f"{name}='{value}'\n" for name, value in settings.items()]
        (self.project / ".env").write_text("".join(lines))

    def set_output(self, what: str, text: str) -> None:
        (self.stand_in / what).write_text(text)

    def calls(self) -> list[str]:
        return (self.stand_in / "calls").read_text().splitlines()

    def files(self) -> set[str]:
        return {path.name for path in self.units.iterdir()} if self.units.exists() else set()


@pytest.fixture
def machine(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine whose paths contain characters that systemd would interpret."""
    base = data_dir.parent / "my 100% $HOME"
    made = Machine(base / "project", base / "config" / "systemd" / "user", base / "bin")
    for folder in (base, made.project, made.stand_in):
        folder.mkdir(mode=0o755)
    program = made.stand_in / "systemctl"
    program.write_text(SYSTEMCTL)
    program.chmod(0o755)
    made.set_output("system", "running\n")
    for name in (PROJECT_VARIABLE, *(name for name, _ in setting_fields())):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(unit_files, "TEMPORARY", ())  # the tests themselves run in a temporary folder
    monkeypatch.setenv("STAND_IN", str(made.stand_in))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(base / "config"))
    monkeypatch.setenv("PATH", f"{made.stand_in}:{os.environ['PATH']}")
    return made


def test_install_writes_and_enables_units_and_uninstall_removes_exactly_those(machine: Machine) -> None:
    machine.configure(DATABASE_URL=f"postgres://user:{SECRET}@db/mistral", DATA_DIR=machine.project / "data")
    machine.registration().install(now=False)
    assert machine.files() == BOTH
    assert machine.calls() == [
        "--user is-system-running",
        "--user daemon-reload",
        f"--user enable {SUPERVISOR_UNIT} {API_UNIT}",
    ]
    written = {path.name: path.read_text() for path in machine.units.iterdir()}
    assert not [text for text in written.values() if SECRET in text]
    assert {path.stat().st_mode & 0o777 for path in machine.units.iterdir()} == {0o644}

    machine.registration().install(now=True)
    assert {path.name: path.read_text() for path in machine.units.iterdir()} == written
    # A running service would keep its old settings.
    assert machine.calls()[-1] == "--user restart mistral-api-supervisor.service mistral-api.service"

    (machine.units / "other.service").touch()
    (machine.project / "data" / "kept").touch()
    said = machine.registration().uninstall()
    assert machine.files() == {"other.service"}
    assert machine.calls()[-2:] == [f"--user disable --now {SUPERVISOR_UNIT} {API_UNIT}", "--user daemon-reload"]
    assert f"The data stay in {machine.project / 'data'}" in said
    assert (machine.project / "data" / "kept").exists()
    with pytest.raises(RegistrationError, match="No unit of ours"):
        machine.registration().uninstall()


def test_units_that_systemd_refuses_are_rolled_back(machine: Machine) -> None:
    machine.set_output("refuses", "")
    with pytest.raises(RegistrationError, match=r"enable .* failed: Failed to enable unit: no"):
        machine.registration().install(now=False)
    assert machine.files() == set()
    assert machine.calls()[-2:] == [f"--user disable {SUPERVISOR_UNIT} {API_UNIT}", "--user daemon-reload"]

    (machine.stand_in / "refuses").unlink()
    machine.registration().install(now=False)
    before = (machine.units / API_UNIT).read_text()
    machine.configure(DATA_DIR=machine.project / "elsewhere")
    machine.set_output("refuses", "")
    with pytest.raises(RegistrationError):
        machine.registration().install(now=False)
    assert (machine.units / API_UNIT).read_text() == before
    assert machine.calls()[-2:] == [f"--user enable {SUPERVISOR_UNIT} {API_UNIT}", "--user daemon-reload"]


def test_install_without_systemd_writes_nothing_and_the_state_is_unknown(machine: Machine) -> None:
    machine.set_output("system", "offline\n")
    with pytest.raises(RegistrationError, match="No systemd runs here"):
        machine.registration().install(now=False)
    assert machine.files() == set()
    assert not (machine.project / "var").exists()
    states = machine.registration().states()
    assert exit_code(states) == UNKNOWN
    assert all("no systemd runs here" in state.detail for state in states)


def test_foreign_unit_is_neither_overwritten_nor_removed(machine: Machine) -> None:
    machine.units.mkdir(parents=True)
    (machine.units / API_UNIT).write_text("[Unit]\n")
    with pytest.raises(RegistrationError, match="was not written by this command"):
        machine.registration().install(now=False)
    with pytest.raises(RegistrationError, match="No unit of ours"):
        machine.registration().uninstall()
    assert (machine.units / API_UNIT).read_text() == "[Unit]\n"


def test_second_copy_of_the_project_does_not_take_over_the_units(machine: Machine) -> None:
    machine.registration().install(now=False)
    copy = machine.project.with_name("copy")
    copy.mkdir()
    with pytest.raises(RegistrationError, match="uninstall it there first"):
        machine.registration(project=copy).install(now=False)
    assert str(machine.project) in (machine.units / API_UNIT).read_text()


def test_moved_project_is_installed_and_uninstalled_at_its_new_place(machine: Machine) -> None:
    machine.registration().install(now=False)
    moved = machine.project.rename(machine.project.with_name("moved"))
    registration = machine.registration(project=moved)
    registration.install(now=False)
    assert str(moved) in (machine.units / API_UNIT).read_text()
    again = moved.rename(machine.project)
    machine.registration(project=again).uninstall()
    assert machine.files() == set()


def test_external_model_server_needs_no_supervisor_unit(machine: Machine) -> None:
    machine.registration().install(now=False)
    machine.configure(MODEL_SERVER_URL="http://127.0.0.1:8099")
    machine.registration().install(now=False)
    assert machine.files() == {API_UNIT}
    assert f"--user disable --now {SUPERVISOR_UNIT}" in machine.calls()


def test_settings_only_in_the_environment_are_refused(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THREADS", "")
    monkeypatch.setenv("API_PORT", "9100")
    monkeypatch.setenv("EMBEDDING_LLAMA_ARG_POOLING", "cls")
    only_here = "environment, which sets API_PORT, EMBEDDING_LLAMA_ARG_POOLING: write that into"
    with pytest.raises(RegistrationError, match=only_here):
        machine.registration().install(now=False)
    machine.configure(API_PORT=9100, EMBEDDING_LLAMA_ARG_POOLING="cls")
    machine.registration().install(now=False)
    assert machine.files() == BOTH


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"MODEL_PATH": "/no/such.gguf"}, "MODEL_PATH: '/no/such.gguf' cannot be read by the account"),
        ({"LLAMA_SERVER_BIN": "/no/such/llama-server"}, "LLAMA_SERVER_BIN: '/no/such/llama-server' cannot be run"),
        ({"API_THREADS": "lots"}, r"API_THREADS in '.*\.env' line 1: 'lots' is not allowed"),
        ({"ADMIN_API_KEY": "too short"}, r"ADMIN_API_KEY in '.*\.env' line 1: its value is not allowed"),
    ],
)
def test_configuration_that_cannot_start_is_not_installed(
    machine: Machine, settings: dict[str, str], sentence: str
) -> None:
    machine.configure(**settings)
    with pytest.raises(RegistrationError, match=sentence) as refused:
        machine.registration().install(now=False)
    assert "\n" not in str(refused.value)
    assert machine.files() == set()


def test_files_that_a_service_reads_outside_the_project_are_found(machine: Machine, tmp_path: Path) -> None:
    adapter, template = tmp_path / "adapter.gguf", tmp_path / "chat.jinja"
    for file in (adapter, template):
        file.touch()
    machine.configure(LLAMA_ARG_LORA=f"{adapter}:0.5", LLAMA_ARG_CHAT_TEMPLATE_FILE=template)
    needed = rehearse_environment(machine.project, own_account()).needed
    assert {Path(sys.executable), Path(sys.base_prefix), adapter, template} <= set(needed)


@pytest.mark.parametrize(
    ("settings", "local"),
    [
        ({}, True),
        ({"MODEL_SERVER_HOST": "localhost"}, True),
        ({"MODEL_SERVER_HOST": "192.0.2.7"}, False),
        ({"MODEL_SERVER_HOST": "0.0.0.0"}, False),
        ({"LLAMA_ARG_RPC": "192.0.2.7:50052"}, False),
        ({"LLAMA_ARG_MMPROJ_URL": "https://example.com/eyes.gguf"}, False),
    ],
)
def test_model_server_that_needs_another_machine_keeps_its_network(
    machine: Machine, settings: dict[str, str], local: bool
) -> None:
    machine.configure(**settings)
    assert rehearse_environment(machine.project, own_account()).stays_on_loopback is local


@as_root
def test_data_of_another_account_is_not_taken_over(machine: Machine) -> None:
    data_dir = machine.project / "var"
    data_dir.mkdir()
    (data_dir / "postgres").mkdir()
    os.chown(data_dir / "postgres", FOREIGN_UID, FOREIGN_UID)
    with pytest.raises(RegistrationError, match="postgres' belongs to another account than the account 'root'"):
        machine.registration().install(now=False)
    with pytest.raises(RegistrationError, match=f"var' belongs to another account than the account '{ACCOUNT_NAME}'"):
        _system_registration(machine).install(now=False)
    assert machine.files() == set()


@as_root
def test_system_unit_runs_under_the_account_that_owns_the_data(machine: Machine) -> None:
    _system_registration(machine).install(now=False)
    text = (machine.units / API_UNIT).read_text()
    assert f"User={ACCOUNT_NAME}\n" in text
    owner = (machine.project / "var").stat()
    assert (owner.st_uid != 0, owner.st_mode & 0o777) == (True, 0o700)
    made = {path.name: path.stat() for path in (machine.project / "var").iterdir()}
    assert made.keys() == {"run", "logs", "slots", "embedding-server-slots", "cache", "journal"}
    assert {(each.st_uid, each.st_mode & 0o777) for each in made.values()} == {(owner.st_uid, 0o700)}
    _system_registration(machine).install(now=False)


@as_root
def test_project_that_the_account_cannot_read_is_refused(machine: Machine) -> None:
    machine.project.chmod(0o700)
    with pytest.raises(RegistrationError, match=f"The account '{ACCOUNT_NAME}' cannot run the server in"):
        machine.registration(user=False).install(now=False)
    assert machine.files() == set()


@as_root
def test_env_file_that_the_account_cannot_read_is_refused(machine: Machine) -> None:
    machine.configure(API_PORT=9000)
    (machine.project / ".env").chmod(0o600)
    with pytest.raises(RegistrationError, match=r"\.env' cannot be read by the account"):
        _system_registration(machine).install(now=False)


@as_root
def test_env_file_readable_by_the_accounts_group_is_accepted(machine: Machine) -> None:
    """The account is created before the rehearsal, so that its group can be set before or after it."""
    machine.configure(API_PORT=9000)
    dotenv = machine.project / ".env"
    said = _system_registration(machine).install(now=False)
    advice = f"chgrp {pwd.getpwnam(ACCOUNT_NAME).pw_gid} {dotenv} && chmod 640 {dotenv}"
    assert any(advice in line for line in said)
    _system_registration(machine).uninstall()
    dotenv.chmod(0o640)
    with pytest.raises(RegistrationError, match=re.escape(advice)):
        _system_registration(machine).install(now=False)
    shutil.chown(dotenv, group=ACCOUNT_NAME)
    _system_registration(machine).install(now=False)
    assert machine.files() == BOTH


@as_root
def test_root_does_not_chown_a_folder_behind_a_symlink(machine: Machine, tmp_path: Path) -> None:
    valuable, data_dir = tmp_path / "valuable", machine.project / "var"
    data_dir.symlink_to(valuable)
    registration = _system_registration(machine)
    with pytest.raises(RegistrationError, match=r"DATA_DIR: .* cannot be made: File exists"):
        registration.install(now=False)
    assert not valuable.exists()


@as_root
def test_any_user_can_print_the_system_units(machine: Machine) -> None:
    _system_registration(machine)
    program = (
        "from mistral_api.registration import unit_files; unit_files.TEMPORARY = ()\n"
        "from mistral_api.cli import main; main()"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program, "service", "install", "--system", "--print"],
        env=clean_environment(THREADS="", ENGINE_INDEX_URL=""), cwd=ROOT,
        user="nobody", group=pwd.getpwnam("nobody").pw_gid, extra_groups=[],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (shown.returncode, shown.stderr) == (0, "")
    assert f"User={ACCOUNT_NAME}\n" in shown.stdout


def _system_registration(machine: Machine) -> SystemdRegistration:
    """Return a system registration; skips where only root can reach the tests' Python."""
    others = Account(FOREIGN_UID, FOREIGN_UID)
    if not all(others.can_reach(folder) for folder in (Path(sys.executable).resolve().parent, Path(sys.prefix), ROOT)):
        pytest.skip("this checkout or its Python can only be reached by root")
    return machine.registration(user=False)


@pytest.mark.parametrize(
    ("shown", "state", "code"),
    [
        (
            "LoadState=loaded\nActiveState=active\nSubState=running\nMainPID=7\nStatusText=ready",
            "active",
            RUNNING,
        ),
        (
            "LoadState=loaded\nActiveState=activating\nSubState=auto-restart\nNRestarts=3",
            "activating",
            NOT_RUNNING,
        ),
        (
            "LoadState=loaded\nActiveState=failed\nSubState=failed\nResult=watchdog",
            "failed",
            NOT_RUNNING,
        ),
        ("LoadState=not-found\nActiveState=inactive", "not installed", UNKNOWN),
    ],
)
def test_state_and_exit_code_of_each_unit_are_reported(machine: Machine, shown: str, state: str, code: int) -> None:
    machine.set_output("shown", shown + "\n")
    states = machine.registration().states()
    assert {each.name for each in states} == BOTH
    assert {each.state for each in states} == {state}
    assert exit_code(states) == code


def test_install_print_shows_the_units_and_writes_nothing(machine: Machine, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).parent / "mistral-api"), "service"]
    unset = {"THREADS": "", "ENGINE_INDEX_URL": ""}
    environment = clean_environment(STAND_IN=str(machine.stand_in), XDG_CONFIG_HOME=str(tmp_path), **unset)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    printed = run("install", "--user", "--print")
    assert (printed.returncode, printed.stderr) == (0, "")
    assert all(f"# ---- {tmp_path}/systemd/user/{name}" in printed.stdout for name in BOTH)
    assert not list(tmp_path.iterdir())
    refused = run("uninstall", "--user")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("Error: No unit of ours is installed")
    machine.set_output("system", "offline\n")
    asked = run("status", "--user")
    assert asked.returncode == UNKNOWN
    assert f"{API_UNIT}: unknown (not installed, and no systemd runs here)" in asked.stdout


@pytest.mark.parametrize("user", [True, False])
def test_systemd_analyze_accepts_the_units(machine: Machine, user: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python's path has spaces, percent and dollar signs, and verify checks that it exists."""
    program = shutil.which("systemd-analyze")
    if program is None:
        skip_unless_ci("systemd-analyze is not installed")
    environment = machine.project / ".venv"
    environment.symlink_to(sys.prefix)
    python = environment / Path(sys.executable).relative_to(sys.prefix)
    monkeypatch.setattr(sys, "executable", str(python))
    if user:
        machine.registration().install(now=False)
    else:
        if os.geteuid() != 0:
            pytest.skip("only root installs units of the system")
        _system_registration(machine).install(now=False)
    done = subprocess.run(
        [program, *(["--user"] if user else []), "verify", *map(str, sorted(machine.units.iterdir()))],
        env=os.environ | {"XDG_RUNTIME_DIR": str(machine.project)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "")
    assert str(python).replace("%", "%%") in (machine.units / API_UNIT).read_text()
