"""What needs an operator's attention: idle cards, base models, short memory, and what keeps records waiting."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from mistral_api.control.attention import AttentionLevel, attention, attention_to_settings, most_urgent_first
from mistral_api.control.placement import DeviceShare, Placement
from mistral_api.control.server_spec import main_server_spec
from mistral_api.control.status import ModelServerStatus, State
from mistral_api.database.probe import DatabaseHealth
from mistral_api.engine_builds.build_store import BuildStore, Choice
from mistral_api.engine_builds.machine import Machine
from mistral_api.engine_builds.variants import Kind
from mistral_api.errors import StartError
from mistral_api.hardware.gpu import DeviceMemory
from mistral_api.hardware.nvml import NvidiaDriver
from mistral_api.model_files.served_model import read_model
from mistral_api.recording.recorder import RecordingState
from mistral_api.settings import Settings
from mistral_api.supervisor import idle_cards, preflight
from mistral_api.supervisor.engine import Engine
from mistral_api.supervisor.idle_cards import IdleCards, IdleCardSearch, processor_is_chosen
from mistral_api.supervisor.memory_fallback import MemoryStep
from mistral_api.supervisor.preflight import has_chat_template, require_memory
from mistral_api.system.command_names import installed_command
from mistral_api.upstream.model_servers import ModelServerHealth
from mistral_api.web.attention import (
    attention_to_model_servers,
    attention_to_records,
    public_attention,
    sorted_attention,
)
from tests.support.gguf_files import LLAMA, write_gguf
from tests.support.model_server_status import make_status
from tests.support.processes import ROOT, wait_for

CARD = "NVIDIA GeForce RTX 3050"
BUNDLED, OWN = Engine("bundled", (), "xllamacpp 1"), Engine("llama-server", ("/opt/llama-server",), "9300 (abc)")
ON_PROCESSOR = Placement(gpu_layers=0, main_memory_bytes=1)
ON_CARD = Placement(devices=[DeviceShare(id="CUDA0", name=CARD, memory_bytes=1)], gpu_layers=33, main_memory_bytes=1)
ALL_LAYERS = MemoryStep("auto", 0)
GOOD_DATABASE: DatabaseHealth = {"status": "ok", "latency_ms": 1.0, "schema": "current"}


def _machine(cuda: tuple[int, int] = (12, 8), *, vulkan: bool = False) -> Machine:
    cards = ({"name": "AMD Radeon", "discrete": True},) if vulkan else ()
    driver = None if vulkan else NvidiaDriver("570.00", cuda, ((CARD, (8, 6)),))
    return Machine("Linux", "x86_64", (2, 36), driver, cards)  # type: ignore[arg-type]  # a literal of a VulkanCard


def _codes(status: ModelServerStatus) -> list[str]:
    return [item["code"] for item in attention_to_settings(status)]


def _model(folder: Path, **metadata: str | int) -> Path:
    return write_gguf(folder / "m.gguf", {**LLAMA, **metadata})


@pytest.mark.parametrize(
    ("machine", "engine", "obstacle"),
    [
        (_machine(), BUNDLED, ""),
        (_machine(vulkan=True), BUNDLED, ""),
        (_machine(cuda=(11, 4)), BUNDLED, "needs a driver for CUDA"),
        (_machine(cuda=(11, 4)), OWN, ""),
        (_machine(), replace(BUNDLED, build_folder=Path("engines")), "the build for it runs"),
    ],
)
def test_cards_beside_an_engine_on_the_processor_are_named_with_what_is_in_the_way(
    machine: Machine, engine: Engine, obstacle: str
) -> None:
    found = idle_cards.idle_cards(machine, engine)
    assert found is not None
    assert found.names == ([CARD] if machine.nvidia else ["AMD Radeon"])
    assert obstacle in (found.obstacle or "")
    assert bool(found.obstacle) is bool(obstacle)
    assert idle_cards.idle_cards(Machine("Linux", "x86_64", (2, 36)), engine) is None


def test_idle_card_is_searched_for_once_and_only_where_the_processor_computes_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []

    def read() -> Machine:
        looks.append(1)
        return _machine()

    monkeypatch.setattr(idle_cards, "read_machine", read)
    monkeypatch.setattr(idle_cards, "may_have_card", lambda: True)
    search = IdleCardSearch(Settings(data_dir=tmp_path), {})
    for placement, step in ((ON_CARD, ALL_LAYERS), (Placement(), ALL_LAYERS), (ON_PROCESSOR, MemoryStep("0", 0))):
        search.begin(BUNDLED, step, placement)
        assert (search.take(), looks) == (None, [])
    for _ in range(2):  # the server is started again
        search.begin(BUNDLED, ALL_LAYERS, ON_PROCESSOR)
        assert wait_for(search.take, "the card") == IdleCards([CARD])
        assert search.take() is None
    assert looks == [1]


@pytest.mark.parametrize(
    ("layers", "variables", "chosen"),
    [
        ("auto", {}, False),
        ("20", {"CUDA_VISIBLE_DEVICES": "0"}, False),
        ("0", {}, True),
        ("auto", {"CUDA_VISIBLE_DEVICES": ""}, True),
        ("auto", {"LLAMA_ARG_DEVICE": "none"}, True),
    ],
)
def test_processor_may_be_the_operators_choice(
    tmp_path: Path, layers: str, variables: dict[str, str], chosen: bool
) -> None:
    settings = Settings(data_dir=tmp_path, gpu_layers=layers)
    assert processor_is_chosen(settings, variables) is chosen
    BuildStore(tmp_path).remember(Choice(Kind.CPU))
    assert processor_is_chosen(settings, variables)


def test_idle_card_names_the_command_that_mends_it() -> None:
    (item,) = attention_to_settings(make_status(idle_cards=[CARD]))
    assert item["message"] == f"The processor computes, although there is {CARD}."
    assert (item["code"], item["command"]) == ("idle_card", installed_command("mistral-api engine install"))
    (item,) = attention_to_settings(make_status(idle_cards=[CARD], idle_reason="it is too old"))
    assert item["message"].endswith(": it is too old.")
    assert item["command"] is None
    (item,) = attention_to_settings(make_status(idle_cards=[CARD], engine="llama-server"))
    assert "LLAMA_SERVER_BIN" in item["message"]


def test_settings_that_are_not_in_effect_and_base_models_need_attention() -> None:
    assert _codes(make_status()) == []
    assert _codes(make_status(memory_step="13 GPU layers", has_chat_template=False)) == ["less_memory", "base_model"]


def test_status_keeps_where_the_model_lies() -> None:
    status = make_status(placement=ON_CARD, idle_cards=["x"])
    assert ModelServerStatus.from_json(status.to_json()) == status


def test_base_model_is_known_by_its_file_and_not_where_the_operator_has_a_template(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LLAMA_ARG_CHAT_TEMPLATE", "LLAMA_ARG_CHAT_TEMPLATE_FILE"):
        monkeypatch.delenv(name, raising=False)

    def has_template(**metadata: str | int) -> bool:
        settings = Settings(model_path=_model(tmp_path, **metadata))
        return has_chat_template(main_server_spec(settings), read_model(settings, "MODEL_PATH"))

    assert has_template(**{"tokenizer.chat_template": "{{ messages }}" * 200})
    assert has_template(**{"tokenizer.chat_template.tool_use": "{{ messages }}"})
    assert has_template(**{"llama.pooling_type": 1})  # no model for chats
    assert not has_template()
    assert not has_template(**{"tokenizer.chat_template": ""})
    monkeypatch.setenv("LLAMA_ARG_CHAT_TEMPLATE", "chatml")
    assert has_template()


def test_cards_memory_counts_for_an_engine_that_computes_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "total_memory_bytes", lambda: 1)
    monkeypatch.setattr(preflight, "read_device_memory", lambda: DeviceMemory(1 << 30, 1 << 30))
    settings = Settings(model_path=_model(tmp_path))
    spec, model = main_server_spec(settings), read_model(settings, "MODEL_PATH")
    require_memory(spec, Engine("bundled", (), "xllamacpp 1 (cu128)", tmp_path), model)
    with pytest.raises(StartError, match="has 0 MiB and this machine 0 MiB of memory"):
        require_memory(spec, BUNDLED, model)


def _health(state: State, engine: str = "bundled") -> ModelServerHealth:
    return {
        "state": state.value, "model": "m", "engine": engine, "engine_version": None, "system_fingerprint": None,
        "restarts": 0, "gpu_layers": 0, "layers": None, "gpu_layers_set": "20", "context_size": 1,
        "request_context_size": 1, "unified_cache": False, "slots": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("state", "engine", "expected"),
    [
        (State.READY, "bundled", []),
        (State.LOADING, "bundled", [("model_server_starting", "warning")]),
        (State.FATAL, "bundled", [("model_server_fatal", "failure")]),
        (State.BACKOFF, "llama-server", [("model_server_backoff", "failure")]),
        (State.STOPPED, "external", [("model_server_unreachable", "failure")]),
        (State.READY, "external", []),
    ],
)
def test_model_server_that_is_not_ready_is_told_apart(
    state: State, engine: str, expected: list[tuple[str, str]]
) -> None:
    items = list(attention_to_model_servers(_health(state, engine), None))
    assert [(item["code"], item["level"]) for item in items] == expected
    assert all(item["command"] for item in items if item["level"] == "failure")


def test_pages_that_describe_an_item_exist() -> None:
    sources = [ROOT / "mistral_api" / room / "attention.py" for room in ("control", "web")]
    named = {page for source in sources for page in re.findall(r'"(docs/[^"]+)"', source.read_text(encoding="utf-8"))}
    assert len(named) > 5
    for page in named:
        file, _, anchor = page.partition("#")
        headings = re.findall(r"^#+ (.*)$", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
        assert not anchor or anchor in {heading.lower().replace(" ", "-") for heading in headings}, page


@pytest.mark.parametrize(
    ("state", "database", "codes"),
    [
        (RecordingState(True, 3, 1.0), GOOD_DATABASE, []),
        (RecordingState(True, 3, 61.0), GOOD_DATABASE, ["records_waiting"]),
        (RecordingState(True, 3, 61.0), GOOD_DATABASE | {"status": "unavailable"}, ["database_unavailable"]),
        (RecordingState(True, 3, 61.0), GOOD_DATABASE | {"schema": "behind"}, ["schema_behind"]),
        (RecordingState(False, 0, None, 2), GOOD_DATABASE, ["journal_failing", "records_rejected"]),
    ],
)
def test_what_keeps_records_waiting_is_named(state: RecordingState, database: DatabaseHealth, codes: list[str]) -> None:
    assert [item["code"] for item in attention_to_records(state, database, None)] == codes


@pytest.mark.parametrize(
    ("pending", "words"), [(0, "go on, and exchanges wait"), (1, "1 exchange waits"), (2, "2 exchanges wait")]
)
def test_waiting_exchanges_are_counted_in_words(pending: int, words: str) -> None:
    (item,) = attention_to_records(RecordingState(True, pending, 1.0), GOOD_DATABASE | {"status": "unavailable"}, None)
    assert f"{words} in the journal." in item["message"]


def test_most_urgent_comes_first_and_strangers_see_no_more_than_the_rest_of_health_says() -> None:
    late = attention("late", AttentionLevel.FAILURE, "It fails.", "mend it")
    items = sorted_attention([make_status(idle_cards=[CARD]), None], [], [late])
    assert [item["code"] for item in items] == ["late", "idle_card"]
    assert public_attention(items) == [late | {"command": None}]
    assert most_urgent_first([]) == []
    assert sorted_attention([make_status(idle_cards=[CARD], state=State.STOPPED)]) == []
