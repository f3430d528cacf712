"""The bundled engine's flags and variables are those of llama-server, and unknown ones are reported."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from mistral_api.control.server_spec import main_server_spec
from mistral_api.embedded.engine.command_line import help_text
from mistral_api.embedded.engine.enumerations import CACHE_TYPE, FLASH_ATTENTION
from mistral_api.embedded.engine.flag import BadFlag, Flag
from mistral_api.embedded.engine.flags import parse_options
from mistral_api.embedded.engine.switches import FLAGS
from mistral_api.embedded.engine.values import LoraAdapter
from mistral_api.settings import Settings
from mistral_api.supervisor.engine import Engine, server_command
from mistral_api.supervisor.memory_fallback import MemoryStep
from tests.support.switch_page import switch_page

# Values of switches that take neither numbers nor files.
WORDS = ("auto", "none", "greedy", "top_k", "x=CPU", '{"a": 1}', "f16", "yarn", "layer", "isolate", "mean", "1-2")


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


@pytest.mark.parametrize(
    ("variable", "reason"),
    [
        ("LLAMA_ARG_RPC", "the bundled engine is built without RPC"),
        ("LLAMA_ARG_DRAFT_MAX", "it is called LLAMA_ARG_SPEC_DRAFT_N_MAX now"),
        ("LLAMA_ARG_CACHE_RAMM", "no switch has this name (did you mean LLAMA_ARG_CACHE_RAM?)"),
        ("LLAMA_ARG_XYZ", "no switch has this name"),
    ],
)
def test_variable_without_effect_is_named_with_the_reason(variable: str, reason: str) -> None:
    options = parse_options([], {variable: "1", "LLAMA_ARG_PORT": "1", "LLAMA_ARG_NO_WEBUI": "1", "HOME": "/"})
    (warning,) = options.warnings
    assert warning.startswith(f"{variable} has no effect on the bundled engine: {reason}")


def test_variable_beside_another_value_of_its_flag_is_named() -> None:
    environment = {"LLAMA_ARG_CTX_SIZE": "4096", "LLAMA_ARG_PORT": "8081"}
    options = parse_options(["-c", "2048", "--port", "8081"], environment)
    assert options.warnings == ["LLAMA_ARG_CTX_SIZE has no effect: --ctx-size is given"]


@pytest.mark.parametrize(
    ("flag", "hint"),
    [
        ("--draft-max", "it is called --spec-draft-n-max now"),
        ("--mlock", "it is called --load-mode mlock now"),
        ("--cache-rm", "did you mean --cache-ram?"),
        ("-hf", "the engine downloads nothing"),
        ("--ssl-key-file", "it is reached from this machine alone"),
    ],
)
def test_flag_that_is_not_taken_is_refused_with_what_may_be_meant(flag: str, hint: str) -> None:
    with pytest.raises(BadFlag) as refused:
        parse_options([flag, "1"], {})
    assert str(refused.value).startswith(f"unrecognized argument: {flag} ({hint}")


def test_each_variable_sets_what_its_flag_sets(gguf: Path) -> None:
    texts = ["64", "1", "0.5", "on", str(gguf), f"{gguf}:2", str(gguf.parent), str(gguf.parent / "object.json"), *WORDS]
    guessing = {"LLAMA_ARG_SPEC_NGRAM_MOD_N_MAX": "9", "LLAMA_ARG_SPEC_TYPE": "ngram-mod"}
    for flag in FLAGS:
        text = "on" if flag.stands_alone else next(text for text in texts if _takes(flag, text))
        by_flag = parse_options([flag.name] if flag.stands_alone else [flag.name, text], guessing)
        assert parse_options([], guessing | {flag.variable: text}).values == by_flag.values, flag.name
        if flag.negative_variable:
            switched_off = parse_options([flag.off[0]], guessing).values
            assert parse_options([], guessing | {flag.negative_variable: ""}).values == switched_off, flag.name


def _takes(flag: Flag, text: str) -> bool:
    try:
        flag.read(text)
    except ValueError:
        return False
    return True


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file that begins as one of llama.cpp's does."""
    path = tmp_path_factory.mktemp("files") / "tiny.gguf"
    path.write_bytes(b"GGUF")
    (path.parent / "object.json").write_text("{}", encoding="utf-8")
    return path


def test_adapters_of_several_flags_and_variables_come_together(gguf: Path) -> None:
    values = parse_options(["--lora", str(gguf), "--lora", f"{gguf},{gguf}"], {"LLAMA_ARG_LORA_SCALED": f"{gguf}:0.5"})
    assert values.values["lora_adapters"] == [LoraAdapter(str(gguf), 1.0)] * 3 + [LoraAdapter(str(gguf), 0.5)]


def test_tensors_in_main_memory_are_those_of_all_flags() -> None:
    values = parse_options(["--n-cpu-moe", "1", "-ot", "a=CPU,b=CPU"], {"LLAMA_ARG_CPU_MOE": "1"}).values
    overrides = values["tensor_buft_overrides"]
    assert isinstance(overrides, list)
    assert {"a=CPU", "b=CPU"} < set(map(str, overrides))
    assert sum("exps=CPU" in str(each) for each in overrides) == 2


def test_values_for_the_template_come_together() -> None:
    arguments = ["--chat-template-kwargs", '{"a": "x", "b": true}', "--reasoning", "off", "--reasoning-effort", "low"]
    values = parse_options(arguments, {}).values
    expected = {"a": '"x"', "b": "true", "enable_thinking": "false", "reasoning_effort": '"low"'}
    assert values["default_template_kwargs"] == expected
    assert values["enable_reasoning"] == 0


def test_keys_come_from_the_variable_and_from_a_file(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("# comment\nb\n\nc\n", encoding="utf-8")
    environment = {"LLAMA_API_KEY": "a", "LLAMA_ARG_API_KEY_FILE": str(keys)}
    assert parse_options([], environment).values["api_keys"] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--split-mode", "rows"], "it takes none, layer, row or tensor"),
        (["--reasoning-format", "x"], "it takes none, deepseek, deepseek-legacy or auto"),
        (["--mmproj", "/none"], "'/none' is not allowed; it takes a file that exists"),
        (["--lora-scaled", "x"], "it takes a list of FILE:SCALE"),
        (["--threads", "513"], "it takes a whole number from -1 to 512"),
        (["-c", "9999999999"], "it takes a whole number from 0"),
        (["--temp", "nan"], "it takes a number"),
        (["--cpu-mask", "0x0"], "it takes a hexadecimal mask"),
        (["--chat-template-kwargs", "[]"], "it takes a JSON object"),
        (["--sleep-idle-seconds", "0"], "it takes a whole number from 1, or -1"),
        (["-ctv", "q8_0", "-fa", "off"], "needs flash attention"),
        (["-c", "4", "-np", "4"], "--ctx-size 4 is too small"),
        (["-b", "3", "-np", "4"], "--batch-size 3 is too small"),
        (["--image-min-tokens", "3", "--image-max-tokens", "2"], "is more than --image-max-tokens 2"),
        (["--spec-draft-n-min", "9", "--spec-draft-n-max", "3"], "is more than --spec-draft-n-max 3: nothing would be"),
        (["--timeout", "0"], "from 1"),
        (["--spec-type", "ngram-mod,draft-simple"], "--spec-type draft-simple needs a small model"),
        (["--spec-synth-rates", "0.5"], "need speculative decoding"),
    ],
)
def test_values_that_llama_cpp_cannot_take_are_refused(arguments: list[str], sentence: str) -> None:
    with pytest.raises(BadFlag, match=re.escape(sentence)):
        parse_options(arguments, {})


def test_help_names_every_flag_and_variable() -> None:
    words = set(re.findall(r"[\w-]+", help_text()))
    assert {name for flag in FLAGS for name in (*flag.names, *flag.off, flag.variable)} <= words


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


def test_page_of_switches_is_that_of_the_table() -> None:
    page = Path(__file__).parents[2] / "docs" / "switches.md"
    assert page.read_text(encoding="utf-8") == switch_page(), "python -m tests.support.switch_page > docs/switches.md"
