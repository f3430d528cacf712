"""README, .env.example, license and docs agree with the code."""

import re
import tomllib
from dataclasses import Field
from enum import IntEnum
from pathlib import Path
from typing import Any

import pytest

from mistral_api.embedded.postgres.account import ACCOUNT_NAME
from mistral_api.embedded.postgres.files import SYSTEM_BASE
from mistral_api.registration.service import SERVICES
from mistral_api.security import audit_file
from mistral_api.settings import SettingError, setting_fields, settings_from
from mistral_api.system import log_file
from mistral_api.system.exit_codes import ExitCode, ModelServerExitCode, ServiceExitCode

ROOT = Path(__file__).parent.parent.parent
LOGS = ((log_file.FILE_BYTES, log_file.OLD_FILES), (audit_file.FILE_BYTES, audit_file.OLD_FILES))
UNIT_FOLDERS = ("~/.config/systemd/user", "/etc/systemd/system")


def _default(declaration: Field[Any]) -> str:
    if declaration.metadata["default_text"]:
        return str(declaration.metadata["default_text"])
    if isinstance(declaration.default, bool):
        return str(declaration.default).lower()
    if isinstance(declaration.default, float):
        return f"{declaration.default:g}"
    return str(declaration.default)


def test_settings_document_lists_every_setting_with_its_default_and_meaning() -> None:
    expected = [
        f"| `{name}` | {_default(declaration)} | {declaration.metadata['meaning']} |"
        for name, declaration in setting_fields()
    ]
    table = [
        line
        for line in (ROOT / "docs" / "settings.md").read_text(encoding="utf-8").splitlines()
        if re.match(r"\| `[A-Z_]+` \|", line)
    ]
    assert table == expected


def test_env_example_names_every_setting_once_with_valid_values() -> None:
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    values = dict(line.removeprefix("# ").split("=", 1) for line in lines if re.match(r"# [A-Z_]+=", line))
    assert sorted(values) == sorted(name for name, _ in setting_fields())
    with pytest.raises(SettingError, match="DATABASE_URL: it still is the template"):
        settings_from(values)
    settings_from(values | {"DATABASE_URL": values["DATABASE_URL"].replace("user:password", "ann:secret")})


def test_env_example_sets_nothing_when_copied_unchanged() -> None:
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    assert all(not line or line.startswith("#") for line in lines)


def test_env_example_contains_the_values_for_an_rtx_3050() -> None:
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    for line in ("GPU_LAYERS=20", "CONTEXT_SIZE=32768", "BATCH_SIZE=2048", "THREADS=8"):
        assert f"# {line}\n" in text


@pytest.mark.parametrize(("column", "codes"), [(1, ExitCode), (2, ModelServerExitCode), (3, ServiceExitCode)])
def test_operation_document_lists_every_exit_code(column: int, codes: type[IntEnum]) -> None:
    section = (ROOT / "docs" / "operation.md").read_text(encoding="utf-8").split("## Exit codes\n")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if "|" in line]
    assert [int(row[0]) for row in rows[2:] if row[column]] == sorted(codes)


def test_license_is_mit() -> None:
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").startswith("MIT License")


def test_links_between_documents_exist() -> None:
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_documents_name_commands_that_every_system_has() -> None:
    for document in [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").glob("*.md"),
        *(path for path in (ROOT / "deploy").rglob("*") if path.is_file() and path.parent.name != "__pycache__"),
    ]:
        assert not re.search(r"(?<![\w.])python bin/", document.read_text()), document


def test_upgrade_document_names_what_lies_outside_of_the_folder() -> None:
    text = (ROOT / "docs" / "upgrade.md").read_text()
    for name in (SYSTEM_BASE, ACCOUNT_NAME, *(f"{folder}/mistral-api*.service" for folder in UNIT_FOLDERS)):
        assert f"`{name}`" in text, name
    assert {service.name.startswith("mistral-api") for service in SERVICES} == {True}


def test_upgrade_document_has_the_bounds_of_the_logs() -> None:
    text = (ROOT / "docs" / "upgrade.md").read_text()
    words = {4: "four", 5: "five"}
    ours, audit = (f"{size >> 20} MB and {words[old]} older ones" for size, old in LOGS)
    names = "`DATA_DIR/logs/api.log`, `delivery.log`, `supervisor.log`, `model-server.log`, `embedding-server.log`"
    assert f"| {names} | {ours}, each |" in text
    assert f"| `DATA_DIR/logs/audit.jsonl` | {audit} |" in text


PACKAGE = ROOT / "mistral_api"
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_architecture_lists_every_package_and_no_other() -> None:
    listed = set(re.findall(r"^\| \d+ \| `([\w./]+)` \|", ARCHITECTURE, re.MULTILINE))
    packages = {f"{path.parent.name}/" for path in PACKAGE.glob("*/__init__.py")}
    modules = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py"}
    assert listed == packages | modules


def test_architecture_has_the_layers_of_the_import_contract() -> None:
    layers: dict[str, set[str]] = {}
    for number, package in re.findall(r"^\| (\d+) \| `([\w./]+)` \|", ARCHITECTURE, re.MULTILINE):
        layers.setdefault(number, set()).add(package.removesuffix("/").removesuffix(".py"))
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    enforced = [set(layer.split(" | ")) for layer in contracts[0]["layers"]]
    assert [layers[number] for number in sorted(layers, key=int)] == enforced


def test_every_file_that_the_architecture_names_exists() -> None:
    named = set(re.findall(r"`((?:[\w-]+/)*[\w-]+\.(?:py|md|toml))`", ARCHITECTURE))
    missing = {name for name in named if not ((PACKAGE / name).exists() or (ROOT / name).exists())}
    assert missing - _names_of_siblings(named) == set()


def _names_of_siblings(named: set[str]) -> set[str]:
    """Modules of one package name it once: ``generation/renderer.py``, ``anthropic_renderer.py``."""
    folders = {Path(name).parent for name in named if "/" in name}
    return {name for name in named if any((PACKAGE / folder / name).exists() for folder in folders)}


def test_every_class_and_thread_that_the_architecture_names_exists() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    for name in set(re.findall(r"`([A-Z][A-Za-z]+)(?:\.\w+)?`", ARCHITECTURE)):
        assert re.search(rf"^class {name}\b", code, re.MULTILINE), name
    threads = ARCHITECTURE.split("| thread | owner |")[1].split("\n\n")[0]
    for name in re.findall(r"^\| `([a-z-]+)`", threads, re.MULTILINE):
        assert f'"{name}"' in code, name
