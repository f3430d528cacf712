"""The files beside a model, and the variables with which nobody would reach a model server of ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from mistral_api.control.engine_switches import switch_variables
from mistral_api.control.server_spec import embedding_server_spec, main_server_spec
from mistral_api.errors import StartError
from mistral_api.model_files.companion_files import companion_files
from mistral_api.model_files.served_model import read_model
from mistral_api.settings import Settings
from mistral_api.supervisor import preflight
from mistral_api.supervisor.engine import Engine
from mistral_api.supervisor.preflight import require_memory, run_preflight
from tests.support.gguf_files import write_gguf
from tests.support.projector_file import write_projector
from tests.support.vision_model import write_lora, write_vision_model

PREFIX = "LLAMA_ARG_"


def _files(**variables: str) -> list[tuple[str, str]]:
    named = companion_files({PREFIX + name: text for name, text in variables.items()}, PREFIX)
    return [(file.variable.removeprefix(PREFIX), file.path.as_posix()) for file in named]


def test_variables_name_files_and_lists_with_scales() -> None:
    assert _files(CTX_SIZE="1", MMPROJ="", LORA="") == []
    assert _files(MMPROJ="/a,b.gguf", SPEC_DRAFT_MODEL="d.gguf") == [
        ("MMPROJ", "/a,b.gguf"),
        ("SPEC_DRAFT_MODEL", "d.gguf"),
    ]
    assert _files(LORA="a.gguf, b.gguf", LORA_SCALED="c:d.gguf:0.5,e.gguf:1") == [
        ("LORA", "a.gguf"),
        ("LORA", "b.gguf"),
        ("LORA_SCALED", "c:d.gguf"),
        ("LORA_SCALED", "e.gguf"),
    ]


def test_file_of_another_kind_is_refused_in_one_sentence(tmp_path: Path) -> None:
    files = {
        "a projector": write_projector(tmp_path / "p.gguf"),
        "an adapter": write_lora(tmp_path / "l.gguf"),
        "a model": write_vision_model(tmp_path / "m.gguf"),
    }
    wanted = {"MMPROJ": "a projector", "LORA": "an adapter", "SPEC_DRAFT_MODEL": "a model"}
    for name, kind in wanted.items():
        for found, path in files.items():
            (file,) = companion_files({PREFIX + name: str(path)}, PREFIX)
            if found == kind:
                assert file.require_usable() == path.stat().st_size
                continue
            with pytest.raises(StartError) as refused:
                file.require_usable()
            assert str(refused.value) == f"LLAMA_ARG_{name}: '{path}' is {found}, and not {kind}."


def test_missing_and_damaged_files_are_refused_in_one_sentence(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(b"GGUF")
    for path, words in ((tmp_path / "none.gguf", "cannot be read: No such file"), (damaged, "is truncated")):
        (file,) = companion_files({"LLAMA_ARG_MMPROJ": str(path)}, PREFIX)
        with pytest.raises(StartError, match=words) as refused:
            file.require_usable()
        assert str(refused.value).startswith(f"LLAMA_ARG_MMPROJ: '{path}' ")


def test_files_beside_a_model_count_in_its_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = write_gguf(tmp_path / "m.gguf", tensors=(1 << 20,))
    spec, engine = main_server_spec(Settings(model_path=model)), Engine("bundled", ("engine",))
    info = read_model(spec.settings, spec.path_setting)
    monkeypatch.setattr(preflight, "total_memory_bytes", lambda: info.file_bytes)
    require_memory(spec, engine, info)
    monkeypatch.setenv("LLAMA_ARG_MMPROJ", str(write_projector(tmp_path / "p.gguf")))
    with pytest.raises(StartError, match=r"has 4 MiB, the files beside it 0 MiB, and this machine 4 MiB of memory"):
        require_memory(spec, engine, info)


def test_each_server_has_its_own_files_and_its_own_sleep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_gguf(tmp_path / "m.gguf")
    main, embedding = main_server_spec(Settings()), embedding_server_spec(Settings(embedding_model_path=path))
    assert embedding is not None
    monkeypatch.setenv("LLAMA_ARG_MMPROJ", "p.gguf")
    monkeypatch.setenv("EMBEDDING_LLAMA_ARG_LORA", "l.gguf")
    assert [file.variable for file in main.companion_files] == ["LLAMA_ARG_MMPROJ"]
    assert [file.variable for file in embedding.companion_files] == ["EMBEDDING_LLAMA_ARG_LORA"]
    for text, seconds in (("60", 60.0), (" 0 ", 0.0), ("-1", None), ("soon", None)):
        monkeypatch.setenv("LLAMA_ARG_SLEEP_IDLE_SECONDS", text)
        assert (main.sleep_seconds, embedding.sleep_seconds) == (seconds, None)


@pytest.mark.parametrize("name", ["SSL_KEY_FILE", "SSL_CERT_FILE", "API_PREFIX"])
def test_variable_with_which_nobody_would_reach_the_server_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for empty in ("", " "):
        assert switch_variables({f"LLAMA_ARG_{name}": empty}, bundled=True)[0].why_without_effect is None
    (switch,) = switch_variables({f"EMBEDDING_LLAMA_ARG_{name}": "/x"}, bundled=False)
    assert (switch.why_without_effect or "").startswith("refused at the start: it is reached ")
    monkeypatch.setenv(f"LLAMA_ARG_{name}", "/x")
    with pytest.raises(StartError, match=f"^LLAMA_ARG_{name} is not for a model server that is started here: "):
        run_preflight(main_server_spec(Settings()), lambda: False)
