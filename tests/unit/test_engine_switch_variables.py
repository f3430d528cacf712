"""Variables of llama.cpp in our environment: which have no effect and why, and what a llama-server gets as flags."""

from __future__ import annotations

from pathlib import Path

import pytest

from mistral_api.control.engine_switches import (
    flags_without_variable,
    sentence_of_switches,
    switch_variables,
    switches_in_effect,
)
from mistral_api.control.server_spec import EMBEDDING_SERVER, MAIN_SERVER, server_specs
from mistral_api.embedded.engine.switches import FLAGS
from mistral_api.settings import Settings
from mistral_api.supervisor.engine import Engine, server_command
from mistral_api.supervisor.memory_fallback import requested_step
from tests.support.gguf_files import write_gguf


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("LLAMA_ARG_CACHE_RAM", None),
        ("LLAMA_ARG_LORA", None),
        ("LLAMA_ARG_NO_KV_UNIFIED", None),
        ("LLAMA_ARG_CTX_SIZE", "CONTEXT_SIZE decides that"),
        ("EMBEDDING_LLAMA_ARG_CTX_SIZE", "EMBEDDING_CONTEXT_SIZE decides that"),
        ("EMBEDDING_LLAMA_ARG_POOLING", None),
        ("EMBEDDING_LLAMA_ARG_POLING", "no switch has this name (did you mean LLAMA_ARG_POOLING?)"),
        ("LLAMA_ARG_MLOCK", "it is called LLAMA_ARG_LOAD_MODE=mlock now"),
    ],
)
def test_switch_without_effect_has_a_reason(name: str, reason: str | None) -> None:
    (switch,) = switch_variables({name: "1", "LLAMA_CACHE": "x", "PORT": "1"}, bundled=True)
    assert (switch.name, switch.value, switch.why_without_effect) == (name, "1", reason)


@pytest.mark.parametrize("name", [MAIN_SERVER, EMBEDDING_SERVER])
def test_switch_of_a_flag_that_the_supervisor_gives_is_said_to_have_no_effect(name: str, tmp_path: Path) -> None:
    settings = Settings(embedding_model_path=write_gguf(tmp_path / "m.gguf"))
    (spec,) = [spec for spec in server_specs(settings) if spec.name == name]
    command = server_command(spec, Engine("bundled", ("engine",)), Path("m"), requested_step(spec.settings))
    given = [flag for flag in FLAGS if set(flag.names) & set(command) and flag.variable != "LLAMA_ARG_POOLING"]
    assert len(given) > 10
    for flag in given:
        variable = flag.variable.replace("LLAMA_ARG_", spec.variable_prefix, 1)
        (switch,) = switch_variables({variable: "1"}, bundled=True)
        assert switch.why_without_effect is not None, variable
        assert switch.why_without_effect.endswith(" decides that")


def test_llama_server_may_have_switches_that_we_do_not_know() -> None:
    environment = {"LLAMA_ARG_NEWEST": "1", "LLAMA_ARG_PORT": "1"}
    switches = switch_variables(environment, bundled=False)
    assert [each.why_without_effect for each in switches] == [None, "MODEL_SERVER_PORT decides that"]
    sentence = "Switches of llama.cpp without effect: LLAMA_ARG_PORT (MODEL_SERVER_PORT decides that)."
    assert sentence_of_switches(switches) == sentence
    assert sentence_of_switches(switches[:1]) is None


def test_slip_of_the_keyboard_is_named_to_a_llama_server_too() -> None:
    environment = dict.fromkeys(("LLAMA_ARG_FLASH_ATN", "LLAMA_ARG_MLOCK", "LLAMA_ARG_DEVICE", "LLAMA_ARG_LORA"), "1")
    switches = switch_variables(environment, bundled=False)
    assert {each.name: each.why_without_effect for each in switches if each.why_without_effect} == {
        "LLAMA_ARG_FLASH_ATN": "did you mean LLAMA_ARG_FLASH_ATTN?"
    }


def test_switches_that_reach_a_server_are_those_with_effect() -> None:
    names = ("LLAMA_ARG_CHAT_TEMPLATE", "LLAMA_ARG_PORT", "LLAMA_ARG_DEVICE", "EMBEDDING_LLAMA_ARG_POOLING")
    environment = dict.fromkeys(names, "1")
    assert switches_in_effect(environment, "LLAMA_ARG_", "bundled") == ["LLAMA_ARG_CHAT_TEMPLATE"]
    assert switches_in_effect(environment, "EMBEDDING_LLAMA_ARG_", "bundled") == ["EMBEDDING_LLAMA_ARG_POOLING"]
    assert "LLAMA_ARG_DEVICE" in switches_in_effect(environment, "LLAMA_ARG_", "llama-server")


def test_llama_server_gets_flags_for_switches_that_it_has_no_variable_for() -> None:
    environment = {
        "LLAMA_ARG_LORA": "a.gguf",
        "LLAMA_ARG_SEED": "5",
        "LLAMA_ARG_CACHE_RAM": "64",
        "LLAMA_ARG_LORA_INIT_WITHOUT_APPLY": "1",
        "LLAMA_ARG_IGNORE_EOS": "0",
        "LLAMA_ARG_NO_WARMUP": "",
    }
    words = ["--lora", "a.gguf", "--lora-init-without-apply", "--no-warmup", "--seed", "5"]
    assert flags_without_variable(environment) == words
