"""The bundled engine's switches compared with llama.cpp's, name by name and parameter by parameter.

The library that the engine is made of has llama.cpp's own reader of command lines in it, which reads the same words. A
new xllamacpp with a flag, a parameter or a word that is not in our table fails here.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypedDict

import pytest

from mistral_api.embedded.engine.enumerations import ENUMERATIONS
from mistral_api.embedded.engine.flag import BadFlag, Flag
from mistral_api.embedded.engine.flags import parse_options
from mistral_api.embedded.engine.switches import FLAGS
from mistral_api.embedded.engine.switches.left_out import LEFT_OUT
from tests.support.llama_server_flags import names_in_help

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="llama.cpp's own reader has no name on Windows")

_NAMES = Path(__file__).parents[1] / "support" / "llama_server_flags.txt"
_COMMANDS = {"-h", "--help", "--usage", "--version", "--list-devices"}

# Parameters that no switch of ours sets, with the reason; a name that ends in a dot stands for all within it.
_ATTRIBUTES_LEFT_OUT = {
    "llama.cpp's other programs use them, its server does not": """
        activation_statistics attention_type check chunk_separator chunk_size cls_sep compute_ppl context_files
        diffusion. display_prompt embd_out embd_sep enable_chat_template escape
        fit_params_print grp_attn_n grp_attn_w hellaswag
        hellaswag_tasks i_chunk i_pos image imat_dat in_files input_prefix input_prefix_bos input_suffix interactive
        is_gen_docs is_pp_shared is_tg_separate kl_divergence logits_file logits_output_dir multiline_input
        multiple_choice multiple_choice_tasks n_chunks n_junk n_out_freq n_pca_batch n_pca_iterations n_pl n_pp n_print
        n_save_freq n_sequences n_tg out_file parse_special path_prompt_cache ppl_output_type ppl_stride process_output
        prompt prompt_cache_all prompt_cache_ro prompt_file save_logits server_base show_statistics show_timings
        simple_io single_turn system_prompt tensor_filter tokenize_ids tokenize_no_bos tokenize_show_count
        tokenize_stdin tts_lang tts_speaker_file usage use_color verbose_prompt winogrande winogrande_tasks""",
    "llama.cpp sets them itself": """
        load_mtp n_outputs_max n_outputs_max_per_seq no_alloc cpuparams.mask_valid cpuparams_batch.mask_valid
        speculative.draft.cpuparams.mask_valid speculative.draft.cpuparams_batch.mask_valid sampling.generation_prompt
        sampling.logit_bias_eog sampling.reasoning_budget_end sampling.reasoning_budget_forced
        sampling.reasoning_budget_start sampling.reasoning_control sampling.user_sampling_config""",
    "its server has no switch for them": "sampling.min_keep sampling.n_prev sampling.n_probs sampling.timing_per_token",
    "the reader of logs sets them elsewhere": "log_json",
    "xllamacpp cannot make one": "sampling.logit_bias",
    "the library is built without TLS": "ssl_file_cert ssl_file_key",
    "a mistake in it ends llama.cpp's process": "sampling.grammar.grammar sampling.grammar.type",
    "without control vectors, which xllamacpp does not have": "control_vector_layer_end control_vector_layer_start",
    "models are downloaded by `mistral-api pull`": """
        hf_token offline model.docker_repo model.hf_file model.hf_repo model.url mmproj.docker_repo mmproj.hf_file
        mmproj.hf_repo mmproj.url speculative.draft.mparams.docker_repo speculative.draft.mparams.hf_file
        speculative.draft.mparams.hf_repo speculative.draft.mparams.url""",
    "whoever reaches the engine could run programs": """
        mcp_servers_config mcp_servers_json server_tools server_tools_runtime ui_mcp_proxy""",
    "one engine serves one model": "models_autoload models_dir models_max models_preset models_preset_hf",
}
# Members of enumerations that llama.cpp's server has no word for.
_MEMBERS_WITHOUT_WORD = {
    "LLAMA_POOLING_TYPE_UNSPECIFIED", "LLAMA_ROPE_SCALING_TYPE_UNSPECIFIED", "LLAMA_ROPE_SCALING_TYPE_LONGROPE",
    "GGML_NUMA_STRATEGY_DISABLED", "GGML_NUMA_STRATEGY_MIRROR", "GGML_NUMA_STRATEGY_COUNT",
    "COMMON_SPECULATIVE_TYPE_COUNT",
}  # fmt: skip
# Threads of their own for prompts and for the small model: llama.cpp takes the rest of their settings only then.
_OWN_THREADS = ["-t", "3", "-tb", "4", "-td", "5", "-tbd", "6"]
# What differs on purpose. The batch is smaller without a card; a slot is one unless more are asked for; -md is no name
# of a download; "none" is not a kind of speculation beside others.
_DIFFERENT = {"n_batch", "n_parallel", "speculative.draft.mparams.hf_file"}
_NO_SPECULATION = "<common_speculative_type.COMMON_SPECULATIVE_TYPE_NONE: 0>"


class Comparison(TypedDict):
    """What the program of the comparison prints: texts of parameters, by path."""

    defaults: dict[str, str]
    readings: list[tuple[dict[str, str], dict[str, str] | None]]
    enumerations: dict[str, list[str]]


@pytest.fixture(scope="module")
def command_lines(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """Return a command line for each flag and each kind of value that it takes."""
    folder = tmp_path_factory.mktemp("switches")
    (folder / "file").write_text('{"type": "object"}', encoding="utf-8")
    (folder / "gguf").write_text("GGUF", encoding="utf-8")
    values = ["3", "0.5", "on", "off", "auto", "1-2", "a,b", "greedy", "top_k", "x=CPU", '{"a":{"b":"c"}}']
    values += [str(folder / "file"), str(folder / "gguf"), f"{folder / 'gguf'}:0.5", str(folder), "none"]
    values += [word for each in ENUMERATIONS for word in each.words]
    return [words for flag in FLAGS for words in _command_lines(flag, values)]


def _command_lines(flag: Flag, values: list[str]) -> Iterator[list[str]]:
    follows = flag.attributes[0].startswith(("cpuparams_batch.", "speculative.draft.cpuparams"))
    own = _OWN_THREADS if follows and "n_threads" not in flag.attributes[0] else []
    if flag.stands_alone:
        yield from ([word] for word in (*flag.names, *flag.off))
        return
    # Devices must exist; the names of files of word sequences and logs are texts like others.
    taken = [value for value in dict.fromkeys(values) if _is_taken(flag, value)]
    texts = taken[:1] if taken and all(value in taken for value in values[:4]) else taken
    yield from ([*own, flag.name, text] for text in (["none"] if "devic" in flag.name else texts))


def _is_taken(flag: Flag, text: str) -> bool:
    try:
        parse_options([flag.name, text], {})
    except BadFlag:
        return False
    return True


@pytest.fixture(scope="module")
def comparison(command_lines: list[list[str]]) -> Comparison:
    """Return how llama.cpp and we read the command lines."""
    printed: Comparison = json.loads(_run_parser(json.dumps(command_lines)))
    return printed


def _run_parser(text: str, *arguments: str) -> str:
    command = [sys.executable, "-m", "tests.support.llama_cpp_parser", *arguments]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _names_of_llama_cpp() -> list[list[str]]:
    return [line.split() for line in _NAMES.read_text(encoding="utf-8").splitlines()]


def test_every_flag_of_llama_cpp_is_taken_or_left_out_with_a_reason() -> None:
    ours = {name for flag in FLAGS for name in (*flag.names, *flag.off)} | _COMMANDS
    left_out = {name for group in LEFT_OUT for name in group.flags}
    theirs = {name for line in _names_of_llama_cpp() for name in line if name.startswith("-")}
    assert ours & left_out == set()
    assert ours | left_out == theirs


def test_variables_are_those_of_llama_cpp() -> None:
    left_out = {name for group in LEFT_OUT for name in group.variables}
    variables = {line[0]: [name for name in line if not name.startswith("-")] for line in _names_of_llama_cpp()}
    ours = {name: [flag.llama_variable] if flag.llama_variable else [] for flag in FLAGS for name in flag.names}
    different = {name: each for name, each in variables.items() if ours.get(name, each) != each}
    assert different == {}
    assert {each for name in set(variables) - set(ours) for each in variables[name]} == left_out


def test_list_of_names_is_that_of_the_installed_engine() -> None:
    assert names_in_help(_run_parser("", "--help")) == _NAMES.read_text(encoding="utf-8").splitlines()


def test_every_parameter_is_set_by_a_flag_or_left_out_with_a_reason(comparison: Comparison) -> None:
    ours = {attribute for flag in FLAGS for attribute in flag.attributes}
    left_out = {name for names in _ATTRIBUTES_LEFT_OUT.values() for name in names.split()}
    theirs = {f"{path.split('.')[0]}." if path.startswith("diffusion.") else path for path in comparison["defaults"]}
    assert ours & left_out == set()
    assert ours | left_out == theirs


def test_every_word_of_an_enumeration_has_its_member(comparison: Comparison) -> None:
    for enumeration in ENUMERATIONS:
        members = {enumeration[word].name for word in enumeration.words}
        native = set(comparison["enumerations"][enumeration.name])
        assert members <= native
        if enumeration.name != "ggml_type":
            assert native - members <= _MEMBERS_WITHOUT_WORD


def test_each_flag_sets_what_it_sets_in_llama_cpp(command_lines: list[list[str]], comparison: Comparison) -> None:
    assert len(command_lines) > 200
    differences: dict[str, object] = {}
    for words, (ours, theirs) in zip(command_lines, comparison["readings"], strict=True):
        if theirs is None:
            differences[" ".join(words)] = "llama.cpp refuses it"
            continue
        different = {path for path in theirs if _plain(ours, path) != _plain(theirs, path)} - _DIFFERENT
        if words[:2] == _OWN_THREADS[:2]:
            different &= {path for flag in FLAGS if words[-2] in flag.names for path in flag.attributes}
        if different:
            differences[" ".join(words)] = {path: (ours[path], theirs[path]) for path in different}
    assert differences == {}


def _plain(values: Mapping[str, str], path: str) -> str | None:
    """Return the text of a parameter; threads that llama.cpp counts itself are as good as unset ones."""
    text = values[path].replace(f"{_NO_SPECULATION}, ", "")
    if path.endswith("n_threads"):
        return text if text in "3456" else None
    if path in ("public_path", "video_ffmpeg_bin_dir"):
        return str(ast.literal_eval(text)).rstrip("/")
    return text
