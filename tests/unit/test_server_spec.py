"""The specifications of the supervised model servers: flags, variables and files."""

from __future__ import annotations

import dataclasses
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from mistral_api.control.server_spec import (
    EMBEDDING_SERVER,
    MAIN_SERVER,
    ServerSpec,
    embedding_server_spec,
    main_server_spec,
    server_specs,
)
from mistral_api.control.status import BUNDLED, status_file
from mistral_api.embedded.engine.enumerations import POOLING
from mistral_api.embedded.engine.flags import parse_options
from mistral_api.errors import StartError
from mistral_api.model_files.served_model import read_model
from mistral_api.settings import Settings, settings_from
from mistral_api.supervisor.engine import Engine, server_command
from mistral_api.supervisor.memory_fallback import requested_step
from mistral_api.supervisor.preflight import remove_stale_socket, require_free_port
from tests.support.gguf_files import LLAMA, write_gguf
from tests.support.reranker_model import CONTEXT, write_reranker

ENGINE = Engine("llama-server", ("llama-server",))


def _embedding_spec(path: Path, **settings: Any) -> ServerSpec:
    served = embedding_server_spec(Settings(embedding_model_path=path, **settings))
    assert served is not None
    return served


def _command(served: ServerSpec) -> list[str]:
    path = served.settings.model_path
    assert path is not None
    return server_command(served, ENGINE, path, requested_step(served.settings))


def test_llama_server_gets_adapters_as_flags_since_it_has_no_variable_for_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec, model = main_server_spec(Settings()), tmp_path / "m.gguf"
    monkeypatch.setenv("LLAMA_ARG_LORA_SCALED", "a.gguf:0.5")
    command = server_command(spec, ENGINE, model, requested_step(spec.settings))
    assert command[command.index("--lora-scaled") + 1] == "a.gguf:0.5"
    assert "--lora" not in command
    bundled = Engine(BUNDLED, ("engine",))
    assert "--lora-scaled" not in server_command(spec, bundled, model, requested_step(spec.settings))


def test_supervised_servers_follow_the_settings(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf")
    away = "http://192.0.2.1"
    for settings, servers in (
        (Settings(), [MAIN_SERVER]),
        (Settings(embedding_model_path=path), [MAIN_SERVER, EMBEDDING_SERVER]),
        (Settings(embedding_model_path=path, model_server_url=away), [EMBEDDING_SERVER]),
        (Settings(model_server_url=away), []),
    ):
        assert [each.name for each in server_specs(settings)] == servers
    assert status_file(tmp_path, EMBEDDING_SERVER) == tmp_path / "run" / "embedding-server.json"


def test_embedding_server_batch_fits_a_whole_input(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", {**LLAMA, "llama.context_length": 1024})
    served = _embedding_spec(path, embedding_model_alias="e,f", embedding_server_port=9, gpu_layers="0", parallel=3)
    command = _command(served)
    values = dict(parse_options(command[1:], {}).values)
    assert values == values | {
        "model.path": str(path),
        "port": 9,
        "model_alias": {"e", "f"},
        "n_ctx": 3072,
        "n_batch": 1024,
        "n_ubatch": 1024,
        "n_parallel": 3,
        "embedding": True,
        "pooling_type": POOLING["mean"],
    }


@pytest.mark.parametrize(
    ("asked", "own", "longest"), [(2048, 512, 512), (2048, 8192, 2048), (0, 8192, 8192), (0, None, 2048)]
)
def test_embedding_input_length_is_limited_by_the_model_context(
    tmp_path: Path, asked: int, own: int | None, longest: int
) -> None:
    names = {name: value for name, value in LLAMA.items() if name != "llama.context_length"}
    path = write_gguf(tmp_path / "m.gguf", names if own is None else names | {"llama.context_length": own})
    assert _embedding_spec(path, embedding_context_size=asked).settings.batch_size == longest


@pytest.mark.parametrize(("kind", "flags"), [(None, ["mean"]), (0, ["mean"]), (1, []), (2, []), (3, []), (4, ["rank"])])
def test_pooling_is_the_models_own_or_mean(tmp_path: Path, kind: int | None, flags: list[str]) -> None:
    path = write_gguf(tmp_path / "m.gguf", LLAMA if kind is None else {**LLAMA, "llama.pooling_type": kind})
    served = _embedding_spec(path)
    assert served.is_reranker is (kind == 4)
    command = _command(served)
    assert [command[index + 1] for index, word in enumerate(command) if word == "--pooling"] == flags


def test_reranker_is_recognised_by_its_classification_head(tmp_path: Path) -> None:
    for says_rank in (True, False):
        served = _embedding_spec(write_reranker(tmp_path / "r.gguf", with_pooling_type=says_rank))
        assert served.is_reranker
        assert served.flags == ("--embeddings", "--pooling", "rank", "-ub", str(CONTEXT))


def test_llama_arg_variables_reach_only_their_own_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_ARG_MMPROJ", "eyes.gguf")
    monkeypatch.setenv("EMBEDDING_LLAMA_ARG_POOLING", "cls")
    main, other = main_server_spec(Settings()), _embedding_spec(write_gguf(tmp_path / "m.gguf"))
    assert main.environment()["LLAMA_ARG_MMPROJ"] == "eyes.gguf"
    assert "LLAMA_ARG_POOLING" not in main.environment()
    assert "LLAMA_ARG_MMPROJ" not in other.environment()
    assert other.environment()["LLAMA_ARG_POOLING"] == "cls"
    assert "--pooling" not in other.flags
    monkeypatch.setenv("EMBEDDING_LLAMA_ARG_RERANKING", "1")
    assert _embedding_spec(write_gguf(tmp_path / "m.gguf")).is_reranker


def test_start_error_names_the_setting_of_the_embedding_server(tmp_path: Path) -> None:
    spec = _embedding_spec(tmp_path / "none.gguf")
    with pytest.raises(StartError, match=r"^EMBEDDING_MODEL_PATH: '.*none.gguf' cannot be read"):
        read_model(spec.settings, spec.path_setting)
    assert spec.is_reranker is None  # it may be either
    clash = _embedding_spec(write_gguf(tmp_path / "m.gguf"), embedding_server_port=8081)
    with pytest.raises(StartError, match="EMBEDDING_SERVER_PORT: 8081 is the port of the other model server"):
        require_free_port(clash)


def test_socket_in_use_is_refused_and_one_that_a_dead_server_left_is_removed() -> None:
    if sys.platform == "win32":
        pytest.skip("Windows has no such sockets")
    # The path of a socket is short, and those of pytest's folders are not.
    with tempfile.TemporaryDirectory() as folder:
        spec = main_server_spec(Settings(data_dir=Path(folder), model_server_host="unix"))
        path = Path(spec.settings.model_server_host)
        path.parent.mkdir()
        require_free_port(spec)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen(1)
            with pytest.raises(StartError, match=r"another program listens on '.*/run/model-server\.sock'; stop"):
                require_free_port(spec)
        assert path.exists()
        require_free_port(spec)
        remove_stale_socket(spec.settings)
        assert not path.exists()


def test_main_server_command_does_not_depend_on_the_embedding_server(tmp_path: Path) -> None:
    alone = settings_from({})
    both = settings_from({"EMBEDDING_MODEL_PATH": str(write_gguf(tmp_path / "m.gguf"))})
    fit = requested_step(alone)
    path = Path("m.gguf")
    assert server_command(main_server_spec(alone), ENGINE, path, fit) == server_command(
        main_server_spec(both), ENGINE, path, fit
    )
    assert dataclasses.replace(both, embedding_model_path=None) == alone
