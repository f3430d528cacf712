"""``.env`` and the data count from the project's folder wherever a command is started, and every command says the same.

Each test starts a command as a user does, in a folder that is not the project's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from mistral_api.settings import setting_fields
from mistral_api.system.project import PROJECT_VARIABLE
from tests.support.processes import ROOT, clean_environment, free_port, temporary_data_dir, wait_for

SCRIPTS = Path(sys.executable).parent
MISTRAL_API = (str(SCRIPTS / "mistral-api"),)
# The template of the description that this project began from, as it is before anybody edits it.
TEMPLATE_URL = "postgresql://username:password@hostname:port/database_name"


@dataclass
class Project:
    """A project's folder with a ``.env``, and another folder, in which the commands are started."""

    folder: Path
    elsewhere: Path

    def configure(self, *lines: str) -> None:
        (self.folder / ".env").write_text("".join(f"{line}\n" for line in lines))

    def environment(self, **settings: str) -> dict[str, str]:
        return clean_environment(**{"THREADS": "", PROJECT_VARIABLE: str(self.folder)} | settings)

    def run(self, *command: str, cwd: Path | None = None, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; no output may have a traceback."""
        done = subprocess.run(
            command, env=self.environment(**settings), cwd=cwd or self.elsewhere,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stdout + done.stderr
        return done

    def files(self) -> set[str]:
        return {path.name for folder in (self.folder, self.elsewhere) for path in folder.iterdir()}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path / "project", tmp_path / "elsewhere")
    made.folder.mkdir()
    made.elsewhere.mkdir()
    return made


def test_project_is_the_checkout_wherever_a_command_is_started(project: Project) -> None:
    program = "from mistral_api.system.project import project_folder; print(project_folder())"
    done = project.run(sys.executable, "-c", program, MISTRAL_API_PROJECT="")
    assert (done.stdout.strip(), done.stderr) == (str(ROOT), "")


def test_settings_says_what_is_in_effect_and_from_where(project: Project) -> None:
    project.configure(
        "API_PORT=9100",
        "DATABASE_URL=postgres://me:s3cret-1@db.example.com:5432/m?sslmode=require&password=s3cret-2",
        "RATE_LIMIT_STORAGE_URL=redis://:s3cret-3@localhost:6379/0",
        "ADMIN_API_KEY=s3cret-4-s3cret-4",
        "DATA_DIR=data",
        "API_PROT=s3cret-5",
        "HF_TOKEN=s3cret-6",
    )
    done = project.run(*MISTRAL_API, "settings", "--changed", MODEL_PATH="m.gguf", API_THREADS="8", GPU_LAYRS="1")
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.rsplit(maxsplit=1 if line.endswith("environment") else 3) for line in done.stdout.splitlines()[4:12]]
    assert {row[0].split()[0]: (row[0].split()[-1], " ".join(row[1:])) for row in rows} == {
        "DATABASE_URL": ("postgresql://me:***@db.example.com:5432/m?sslmode=require", ".env line 2"),
        "API_PORT": ("9100", ".env line 1"),
        "API_THREADS": ("8", "environment"),
        "ADMIN_API_KEY": ("***", ".env line 4"),
        "RATE_LIMIT_STORAGE_URL": ("redis://***@localhost:6379/0", ".env line 3"),
        "ENGINE_INDEX_URL": ("http://127.0.0.1:9", "environment"),
        "MODEL_PATH": (str(project.elsewhere / "m.gguf"), "environment"),
        "DATA_DIR": (str(project.folder / "data"), ".env line 5"),
    }
    assert done.stdout.splitlines()[-1] == (
        "No settings of this server, so they have no effect: API_PROT in .env line 6 (did you mean API_PORT?), "
        "GPU_LAYRS in the environment (did you mean GPU_LAYERS?)."
    )
    assert "s3cret" not in done.stdout
    assert project.files() == {".env"}


def test_settings_as_json_have_every_setting_with_its_type(project: Project) -> None:
    project.configure("MODEL_ALIASS=x", "LLAMA_ARG_CTX_SIZE=9")
    origins = "http://a.example, http://b.example"
    done = project.run(*MISTRAL_API, "settings", "--json", CORS_ORIGINS=origins, LLAMA_ARG_CACHE_RAM="64")
    shown = json.loads(done.stdout)
    values = {name: each["value"] for name, each in shown["settings"].items()}
    assert list(values) == [name for name, _ in setting_fields()]
    assert (values["API_PORT"], values["STORE_CONTENT"], values["DATABASE_URL"]) == (9000, True, None)
    assert values["CORS_ORIGINS"] == ["http://a.example", "http://b.example"]
    assert values["DATA_DIR"] == str(project.folder / "var")
    assert shown["settings"]["DATABASE_URL"] == {
        "value": None,
        "stands_for": f"embedded PostgreSQL in {project.folder / 'var' / 'postgres'}",
        "source": "default",
        "line": None,
    }
    assert "demo model, " in shown["settings"]["MODEL_PATH"]["stands_for"]
    assert (shown["env_file"], shown["project"]) == (str(project.folder / ".env"), str(project.folder))
    assert shown["misspelt"] == [{"name": "MODEL_ALIASS", "line": 1, "nearest": "MODEL_ALIAS"}]
    assert shown["switches"] == {
        "LLAMA_ARG_CACHE_RAM": {"value": "64", "source": "environment", "line": None, "no_effect": None},
        "LLAMA_ARG_CTX_SIZE": {"value": "9", "source": ".env", "line": 2, "no_effect": "CONTEXT_SIZE decides that"},
    }
    assert project.files() == {".env"}


# What each is called with, and the folder that it must be started in.
COMMANDS: dict[str, tuple[tuple[str, ...], Path | None]] = {
    "serve": ((sys.executable, "-m", "mistral_api.serving"), None),
    "supervisor": ((sys.executable, "-m", "mistral_api.supervisor"), None),
    "waitress": ((str(SCRIPTS / "waitress-serve"), "--listen=127.0.0.1:0", "wsgi:app"), ROOT),
    "flask": ((str(SCRIPTS / "flask"), "db", "upgrade"), ROOT),
    "settings": ((*MISTRAL_API, "settings"), None),
    "stats": ((*MISTRAL_API, "stats"), None),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_refuses_the_same_settings_in_the_same_words(name: str, project: Project) -> None:
    project.configure(f"DATABASE_URL={TEMPLATE_URL}", "# a comment", "API_PORT=abc")
    command, folder = COMMANDS[name]
    done = project.run(*command, cwd=folder, API_THREADS="lots")
    assert (done.returncode, done.stdout) == (2, "")
    env_file = project.folder / ".env"
    sentences = done.stderr.removeprefix("Error: ").splitlines()
    assert sentences[0].startswith(f"DATABASE_URL in '{env_file}' line 1: it still is the template")
    assert sentences[1:] == [
        f"API_PORT in '{env_file}' line 3: 'abc' is not allowed; give a whole number from 0 to 65535.",
        "API_THREADS: 'lots' is not allowed; give a whole number from 1 to 1024.",
    ]
    assert "password@" not in done.stderr
    assert project.files() == {".env"}


def test_bad_line_of_the_env_file_ends_a_command_with_its_number(project: Project) -> None:
    project.configure("API_PORT=9100", "ADMIN_API_KEY 's3cret")
    done = project.run(*COMMANDS["serve"][0])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"'{project.folder / '.env'}' line 2: expected NAME=value.\n"


def test_server_started_elsewhere_uses_the_projects_data_and_warns_once() -> None:
    with temporary_data_dir() as data_dir:
        base = data_dir.parent
        project = Project(base / "project", base / "elsewhere")
        project.folder.mkdir()
        project.elsewhere.mkdir()
        project.configure(
            "API_PROT=1", f"API_PORT={free_port()}", "DATA_DIR=data", "MODEL_SERVER_URL=http://127.0.0.1:1"
        )
        log_path = base / "serve.log"
        with log_path.open("w") as log:
            process = subprocess.Popen(
                COMMANDS["serve"][0], env=project.environment(), cwd=project.elsewhere, stdout=log, stderr=log
            )
        try:
            wait_for(lambda: "is not ready" in log_path.read_text() or process.poll() is not None, "its line", 60)
        finally:
            process.terminate()
            process.wait(40)
        warned = [line for line in log_path.read_text().splitlines() if "API_PROT" in line]
        assert len(warned) == 1, log_path.read_text()
        assert "API_PROT in .env line 1 (did you mean API_PORT?)" in warned[0]
        assert os.listdir(project.elsewhere) == []
        assert {"journal", "postgres"} <= set(os.listdir(project.folder / "data"))
