"""The bundled engine's flags and variables are those of llama-server, and unknown ones are reported."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mistral_api.control.server_spec import main_server_spec
from mistral_api.embedded.engine.enumerations import CACHE_TYPE, FLASH_ATTENTION
from mistral_api.embedded.engine.flag import BadFlag
from mistral_api.embedded.engine.flags import parse_options
from mistral_api.settings import Settings
from mistral_api.supervisor.engine import Engine, server_command
from mistral_api.supervisor.memory_fallback import MemoryStep


def test_bundled_engine_parses_the_supervisors_command_line() -> None:
    fit = MemoryStep("auto", 0, "q8_0")
    command = server_command(
        main_server_spec(Settings(model_alias="a,b")), Engine("bundled", ("engine",)), Path("m"), fit
    )
    values = dict(parse_options(command[1:], {}).values)
    assert values == values | {
        "model.path": "m",
        "hostnames": ["127.0.0.1"],
        "port": 8081,
        "model_alias": {"a", "b"},
        "n_gpu_layers": -1,
        "n_ctx": 0,
        "cache_type_k": CACHE_TYPE["q8_0"],
        "flash_attn_type": FLASH_ATTENTION["on"],
        "n_batch": 2048,
        "n_parallel": 4,
        "endpoint_metrics": True,
        "endpoint_slots": True,
    }


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--no-such-flag"], "unrecognized argument: --no-such-flag"),
        (["--mode", "x"], "unrecognized argument: --mode"),  # no abbreviations
        (["--port", "many"], "argument --port: 'many' is not allowed"),
        (["-ngl", "some"], "argument --n-gpu-layers: 'some' is not allowed"),
        (["-fa", "maybe"], "argument --flash-attn: 'maybe' is not allowed"),
        (["-ctk", "q9"], "argument --cache-type-k: 'q9' is not allowed"),
        (["-m"], "argument -m/--model: expected one argument"),
        (["--slots", "--no-slots"], "not allowed with argument"),
    ],
)
def test_unknown_engine_flag_is_refused_by_name(arguments: list[str], sentence: str) -> None:
    with pytest.raises(BadFlag) as refused:
        parse_options(arguments, {})
    assert sentence in str(refused.value)


def test_engine_flags_override_llama_arg_variables() -> None:
    environment = {"LLAMA_ARG_PORT": "1", "LLAMA_ARG_CTX_SIZE": "4096", "LLAMA_ARG_ENDPOINT_SLOTS": "off"}
    values = parse_options(["--port", "2"], environment).values
    assert (values["port"], values["n_ctx"], values["endpoint_slots"]) == (2, 4096, False)


def test_bad_llama_arg_variable_is_refused_by_name() -> None:
    with pytest.raises(BadFlag, match="argument LLAMA_ARG_CTX_SIZE: 'wide' is not allowed"):
        parse_options([], {"LLAMA_ARG_CTX_SIZE": "wide"})


def test_unsupported_llama_arg_variables_are_listed() -> None:
    options = parse_options([], {"LLAMA_ARG_RPC": "host", "LLAMA_ARG_PORT": "1", "HOME": "/"})
    assert [warning.split(" has no effect")[0] for warning in options.warnings] == ["LLAMA_ARG_RPC"]


@pytest.mark.parametrize(("text", "layers"), [("auto", -1), ("all", -2), ("0", 0), ("20", 20)])
def test_gpu_layers_flag_takes_a_number_or_a_word(text: str, layers: int) -> None:
    assert parse_options(["-ngl", text], {}).values["n_gpu_layers"] == layers


def test_slot_save_path_must_exist_and_gets_a_trailing_separator(tmp_path: Path) -> None:
    flag = "--slot-save-path"
    for given in (str(tmp_path), f"{tmp_path}{os.sep}"):
        assert parse_options([flag, given], {}).values["slot_save_path"] == f"{tmp_path}{os.sep}"
    with pytest.raises(BadFlag, match="slot-save-path"):
        parse_options([flag, str(tmp_path / "none")], {})


def test_chat_template_is_read_from_a_file_and_flags_override_variables(tmp_path: Path) -> None:
    file = tmp_path / "template.jinja"
    file.write_text("{{ messages }} é", encoding="utf-8")
    variable = {"LLAMA_ARG_CHAT_TEMPLATE_FILE": str(file)}
    assert parse_options(["--chat-template-file", str(file)], {}).values["chat_template"] == "{{ messages }} é"
    assert parse_options([], variable).values["chat_template"] == "{{ messages }} é"
    assert parse_options(["--chat-template", "chatml"], variable).values["chat_template"] == "chatml"
    with pytest.raises(BadFlag, match="chat-template-file"):
        parse_options(["--chat-template-file", str(tmp_path / "none")], {})
