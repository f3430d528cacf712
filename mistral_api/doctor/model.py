"""Checks of what generates: the engine, the device it computes on, the model's file, and the memory they need."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import closing

import psutil

from mistral_api.control.attention import BASE_MODEL, idle_card_attention
from mistral_api.control.placement import Placement
from mistral_api.control.rpc_workers import worker_addresses
from mistral_api.control.server_environment import server_environment
from mistral_api.control.server_spec import ServerSpec, server_specs
from mistral_api.control.status import BUNDLED, ModelServerStatus, State, read_status
from mistral_api.doctor.finding import Finding, failure, ok, warning
from mistral_api.errors import StartError
from mistral_api.hardware.gpu import GpuMonitor
from mistral_api.hardware.nvml import Card
from mistral_api.model_files.served_model import ModelInfo, read_model
from mistral_api.settings import Settings
from mistral_api.supervisor.engine import Engine, choose_engine
from mistral_api.supervisor.idle_cards import processor_is_chosen
from mistral_api.supervisor.preflight import has_chat_template, needed_bytes, require_memory
from mistral_api.system.addresses import without_credentials
from mistral_api.system.byte_sizes import format_size
from mistral_api.system.command_names import installed_command, project_command
from mistral_api.system.exit_codes import ExitCode
from mistral_api.system.processes import error_lines, run_command

# How long the driver, and the import of the bundled engine, are waited for.
DRIVER_SECONDS = 5.0
IMPORT_SECONDS = 8.0


def check_engine(settings: Settings) -> Iterator[Finding]:
    """Say which program would serve the model, and whether it runs."""
    if settings.model_server_url is not None and not settings.supervises_any:
        yield ok("engine", f"none of our own: MODEL_SERVER_URL is {without_credentials(settings.model_server_url)}")
        return
    try:
        engine = _engine(settings)
    except StartError as error:
        yield failure("engine", str(error))
        return
    reason = _load_error(engine) if engine.name == BUNDLED else None
    if reason is not None:
        yield failure(
            "engine", f"the bundled engine does not load: {reason}", f"delete .venv, then: {project_command('serve')}"
        )
        return
    yield ok("engine", f"{engine.name}, {engine.version or 'of an unknown version'}")


def _engine(settings: Settings) -> Engine:
    return choose_engine(settings, lambda: False)


def _load_error(engine: Engine) -> str | None:
    """Return why the bundled engine cannot load its library, or None."""
    try:
        done = run_command([*engine.command, "--version"], IMPORT_SECONDS, env=engine.question_environment())
    except subprocess.TimeoutExpired:
        return f"no end within {IMPORT_SECONDS:.0f} s"
    return None if done.returncode == ExitCode.OK else error_lines(done)[-1].removeprefix("error: ")


def check_device(settings: Settings) -> Iterator[Finding]:
    """Say what computes: what a running model server has said, and else what would, of what the driver reports."""
    status = read_status(settings.data_dir) if settings.supervised else None
    if status is not None and status.placement is not None and status.placement.is_known:
        yield _computing(status, status.placement)
        return
    with closing(GpuMonitor(read_seconds=DRIVER_SECONDS)) as monitor:
        cards = monitor.cards()
    processor = f"processor, {settings.threads} threads"
    if not cards:
        yield ok("device", f"{processor}; no NVIDIA card is found")
        return
    names = ", ".join(_described(card) for card in cards)
    environment = server_environment(os.environ)
    if not settings.supervised:
        yield ok("device", f"{names}; the model server is somebody else's")
    elif processor_is_chosen(settings, environment):
        yield ok("device", f"{processor}, as was chosen; there is {names}")
    elif _has_processor_build(settings):
        mend = installed_command("mistral-api engine install")
        yield warning("device", f"{processor}, although there is {names}: the engine is the build for the CPU", mend)
    else:
        yield ok("device", f"{names}; GPU_LAYERS={settings.gpu_layers}")


def _computing(status: ModelServerStatus, placement: Placement) -> Finding:
    """Return the finding of what computes now."""
    if status.idle_cards:
        item = idle_card_attention(status)
        return warning("device", item["message"], item["command"] or item["documentation"])
    return ok("device", f"computes {placement.describe_devices()}")


def _has_processor_build(settings: Settings) -> bool:
    """Whether the engine to start is the bundled one's build for the processor."""
    try:
        engine = _engine(settings)
    except StartError:  # said by the check of the engine
        return False
    return engine.name == BUNDLED and engine.build_folder is None


def _described(card: Card) -> str:
    total, free = card.reading.memory_total_bytes, card.memory_free_bytes
    memory = "" if total is None or free is None else f" ({format_size(free)} of {format_size(total)} free)"
    return f"{card.reading.name}{memory}"


def check_model(settings: Settings) -> Iterator[Finding]:
    """Look into the files of the models that we serve ourselves."""
    for spec in server_specs(settings):
        try:
            model = read_model(spec.settings, spec.path_setting)
        except StartError as error:
            yield failure(_subject(spec, "model"), str(error), installed_command("mistral-api pull --list"))
            continue
        yield ok(_subject(spec, "model"), _model_text(model))
        if not has_chat_template(spec, model):
            yield warning(_subject(spec, "model"), f"it {BASE_MODEL}")


def _subject(spec: ServerSpec, subject: str) -> str:
    return subject if spec.path_setting == "MODEL_PATH" else f"embedding {subject}"


def _model_text(model: ModelInfo) -> str:
    known = [
        model.architecture,
        f"{model.parameters / 1e9:.2f} B parameters",
        model.quantization,
        f"made for {model.context} tokens" if model.context else None,
    ]
    return f"'{model.path}', {format_size(model.file_bytes)}: {', '.join(each for each in known if each)}"


def check_memory(settings: Settings) -> Iterator[Finding]:
    """Compare the memory that each model will need with what there is."""
    for spec in server_specs(settings):
        subject = _subject(spec, "memory")
        status = read_status(settings.data_dir, spec.name)
        if status is not None and status.state is State.READY:
            step = status.memory_step
            yield (
                warning(subject, f"runs with less than was set: {step}", f"{project_command('supervisor')} --retry-gpu")
                if step
                else (ok(subject, "the model is loaded, with the memory that was set"))
            )
            continue
        try:
            model, engine = read_model(spec.settings, spec.path_setting), _engine(spec.settings)
        except StartError:  # said by the checks of the model and of the engine
            continue
        yield _compare_memory(subject, spec, engine, model)


def _compare_memory(subject: str, spec: ServerSpec, engine: Engine, model: ModelInfo) -> Finding:
    try:
        # What workers have is said by their own check, and held against the model at the start.
        require_memory(spec, engine, model, of_workers=None if worker_addresses(spec.environment()) else 0)
    except StartError as error:
        return failure(subject, str(error), installed_command("mistral-api pull --list"))
    needed = needed_bytes(spec, model)
    memory = psutil.virtual_memory()
    text = f"about {format_size(needed)} needed, {format_size(memory.available)} of {format_size(memory.total)} free"
    if needed > memory.available:
        return warning(subject, text, "close other programs, or set a smaller CONTEXT_SIZE or PARALLEL")
    return ok(subject, text)
