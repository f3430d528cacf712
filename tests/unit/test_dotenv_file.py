"""``.env`` is read as its users write it, and what cannot be read is named with its line and never quoted."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mistral_api.settings import DotenvFile, SettingError, read_dotenv_file
from mistral_api.settings.misspelling import find_misspellings


def _file(folder: Path, content: str | bytes) -> Path:
    path = folder / ".env"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def _read(folder: Path, content: str | bytes, **environment: str) -> DotenvFile:
    return read_dotenv_file(_file(folder, content), environment)


def _sentences(folder: Path, content: str | bytes) -> tuple[str, ...]:
    path = _file(folder, content)
    with pytest.raises(SettingError) as refused:
        read_dotenv_file(path, {})
    assert "s3cret" not in str(refused.value)
    assert all(each.startswith((f"'{path}'", "DATABASE_URL in ")) for each in refused.value.sentences)
    return tuple(each.replace(str(path), ".env") for each in refused.value.sentences)


def test_no_file_and_a_folder_of_that_name_have_no_values(tmp_path: Path) -> None:
    assert read_dotenv_file(tmp_path / ".env", {}).values == {}
    (tmp_path / ".env").mkdir()
    assert read_dotenv_file(tmp_path / ".env", {}).values == {}


def test_byte_order_mark_windows_line_ends_and_export_are_read(tmp_path: Path) -> None:
    values = _read(tmp_path, b"\xef\xbb\xbfAPI_PORT=1\r\n\r\n# comment\r\nexport THREADS = '2' # two\r\n").values
    assert {name: (value.text, value.line) for name, value in values.items()} == {
        "API_PORT": ("1", 1),
        "THREADS": ("2", 4),
    }


def test_last_line_of_a_name_counts(tmp_path: Path) -> None:
    assert _read(tmp_path, "API_PORT=1\nAPI_PORT=2\n").values["API_PORT"].line == 2


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        ("API_PORT=1\n\n\ns3cret\nTHREADS=1\n", 4, "expected NAME=value."),
        ("export s3cret\n", 1, "expected NAME=value."),
        ("API_PORT: s3cret\n", 1, "expected NAME=value."),
        ("=s3cret\n", 1, "expected NAME=value."),
        ("postgres://me:s3cret@db/m?sslmode=require\n", 1, "expected NAME=value."),
        ("\r\nADMIN_API_KEY='s3cret\r\nTHREADS=1\r\n", 2, "its closing quote is missing, or something follows it."),
        ('ADMIN_API_KEY="s3cret" more\n', 1, "its closing quote is missing, or something follows it."),
        ('A=1\nDATA_DIR="C:\\s3cret\\"\n', 2, "a backslash before the closing quote makes it a part of the value"),
        ("A=1\nADMIN_API_KEY=s3\0cret\n", 2, "it holds a NUL character."),
    ],
)
def test_bad_line_is_named_with_its_number(content: str, line: int, reason: str, tmp_path: Path) -> None:
    (sentence,) = _sentences(tmp_path, content)
    assert sentence.startswith(f"'.env' line {line}: {reason}")


def test_every_bad_line_is_named_up_to_a_number(tmp_path: Path) -> None:
    assert _sentences(tmp_path, "s3cret\nAPI_PORT=1\nTHREADS='s3cret\n") == (
        "'.env' line 1: expected NAME=value.",
        "'.env' line 3: its closing quote is missing, or something follows it.",
    )
    assert _sentences(tmp_path, "s3cret\n" * 9)[-1] == "'.env': 4 more such lines."


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"A=1\nADMIN_API_KEY=s3cret\xe9\n", "it is not UTF-8 (line 2)"),
        ("ADMIN_API_KEY=s3cret\n".encode("utf-16"), "it is UTF-16 (line 1)"),
    ],
)
def test_other_encodings_are_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    assert _sentences(tmp_path, content) == (f"'.env' cannot be read: {reason}; save it as UTF-8.",)


def test_variables_are_expanded_from_the_environment_and_from_earlier_lines(tmp_path: Path) -> None:
    text = "HOST_OF_DB=db\nDATABASE_URL=postgres://${WHO}:$p@${HOST_OF_DB}/${NAME:-m}\n"
    assert _read(tmp_path, text, WHO="me").values["DATABASE_URL"].text == "postgres://me:$p@db/m"


def test_variable_that_is_not_set_is_refused_in_a_setting(tmp_path: Path) -> None:
    (sentence,) = _sentences(tmp_path, "OTHER=${NONE}\nDATABASE_URL=postgres://me:${s3cret}@db/m\n")
    assert sentence.startswith("DATABASE_URL in '.env' line 2: its value has a variable ${…} that is not set")


@pytest.mark.parametrize(
    ("written", "path"),
    [
        (r"C:\temp\new.gguf", r"C:\temp\new.gguf"),
        (r'"C:\temp\new.gguf"', r"C:\temp\new.gguf"),
        (r"'C:\temp\new.gguf'", r"C:\temp\new.gguf"),
        (r'"C:\\temp\\new.gguf"', r"C:\temp\new.gguf"),
        (r'"\\server\share\new.gguf"', r"\\server\share\new.gguf"),
        (r"'\\\\server\\share'", r"\\server\share"),
        (r'"my \"best\" model.gguf"', 'my "best" model.gguf'),
    ],
)
def test_windows_path_may_stand_in_quotes(written: str, path: str, tmp_path: Path) -> None:
    values = _read(tmp_path, f"MODEL_PATH={written}\n").values
    assert values["MODEL_PATH"].text == str(tmp_path / path)


def test_relative_paths_count_from_the_folder_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").touch()
    text = (
        "DATA_DIR=data\nMODEL_PATH=/srv/m.gguf\nLLAMA_SERVER_BIN=llama-server\nEMBEDDING_MODEL_PATH=~/m.gguf\n"
        "LLAMA_ARG_LORA_SCALED=a.gguf:0.5,b.gguf:1\nAPI_HOST=a.gguf\nHF_HOME=hf\n"
    )
    assert {name: value.text for name, value in _read(tmp_path, text).values.items()} == {
        "DATA_DIR": str(tmp_path / "data"),
        "MODEL_PATH": str(tmp_path / "/srv/m.gguf"),
        "LLAMA_SERVER_BIN": "llama-server",
        "EMBEDDING_MODEL_PATH": "~/m.gguf",
        "LLAMA_ARG_LORA_SCALED": f"{tmp_path / 'a.gguf'}:0.5,b.gguf:1",
        "API_HOST": "a.gguf",
        "HF_HOME": "hf",
    }


# What shells, desktops, containers and continuous integration commonly have.
COMMON_VARIABLES = """
    PATH HOME USER SHELL PWD OLDPWD TERM LANG LC_ALL TZ EDITOR PAGER DISPLAY WAYLAND_DISPLAY SSH_AUTH_SOCK SHLVL LOGNAME
    HOST PORT HOSTNAME HOSTTYPE THREADS_MAX API_KEY API_URL API_BASE API_TOKEN DATABASE DATABASE_HOST DATABASE_PORT
    DATABASE_NAME DB_HOST LOG_DIR LOG_FILE LOG_PATH DATA DATA_PATH MODEL MODELS MODEL_DIR MODEL_NAME CACHE_DIR DEBUG
    GPU_DEVICE_ORDINAL CUDA_VISIBLE_DEVICES OMP_NUM_THREADS OPENAI_API_KEY HF_HOME NUMBER_OF_PROCESSORS TEMP TMP
    PROCESSOR_LEVEL APPDATA USERPROFILE PGDATA PGPORT POSTGRES_PASSWORD KUBERNETES_SERVICE_HOST KUBERNETES_PORT
    XDG_DATA_DIRS XDG_RUNTIME_DIR DBUS_SESSION_BUS_ADDRESS HTTP_PROXY no_proxy VIRTUAL_ENV CONDA_PREFIX CI
    GITHUB_ACTIONS MAIL LS_COLORS LESSOPEN WSL_DISTRO_NAME PARALLEL_JOBS MAKEFLAGS BATCH CONTEXT REDIS_URL
    PYTHONUNBUFFERED OTEL_EXPORTER_OTLP_TRACES_ENDPOINT
"""


def test_common_variables_are_no_misspelt_settings(tmp_path: Path) -> None:
    assert find_misspellings(DotenvFile(tmp_path / ".env"), dict.fromkeys(COMMON_VARIABLES.split(), "")) == ()


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("API_PROT", "API_PORT"),
        ("MODEL_PATHS", "MODEL_PATH"),
        ("DATBASE_URL", "DATABASE_URL"),
        ("THRAEDS", "THREADS"),
        ("GPU_LAYER", "GPU_LAYERS"),
        pytest.param("api_port", "API_PORT", marks=pytest.mark.skipif(sys.platform == "win32", reason="the same name")),
    ],
)
def test_slip_of_the_keyboard_is_found_in_the_environment_and_in_the_file(
    name: str, setting: str, tmp_path: Path
) -> None:
    (found,) = find_misspellings(DotenvFile(tmp_path / ".env"), {name: "x"})
    assert (found.name, found.nearest, found.line) == (name, setting, None)
    (found,) = find_misspellings(_read(tmp_path, f"\n{name}=x\n"), {name: "x"})
    assert (found.name, found.nearest, found.line) == (name, setting, 2)


def test_names_of_other_programs_are_known_and_foreign_names_of_settings_translated(tmp_path: Path) -> None:
    text = (
        "HF_TOKEN=x\nLLAMA_ARG_MMPROJ=x\nEMBEDDING_LLAMA_ARG_POOLING=x\nPOSTGRES_PASSWORD=x\nhttps_proxy=x\n"
        "FLASK_DEBUG=1\nN_CTX=1\nPORT=1\nNO_SUCH_THING_AT_ALL=x\n"
    )
    found = find_misspellings(_read(tmp_path, text), {})
    assert {each.name: each.nearest for each in found} == {
        "N_CTX": "CONTEXT_SIZE",
        "PORT": "API_PORT",
        "NO_SUCH_THING_AT_ALL": None,
    }
