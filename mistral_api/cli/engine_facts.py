"""What ``mistral-api engine show`` says of an engine: what it is, where it comes from, and what it computes on."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from mistral_api.control.server_spec import server_specs
from mistral_api.control.status import BUNDLED, State, read_status
from mistral_api.engine_builds.devices import Device, EngineBroken, list_devices_of
from mistral_api.engine_builds.variants import PACKAGE
from mistral_api.errors import ModelServerError, StartError
from mistral_api.settings import Settings
from mistral_api.supervisor.engine import Engine, choose_engine
from mistral_api.system.addresses import without_credentials
from mistral_api.system.byte_sizes import format_size
from mistral_api.upstream.cancellation import DisconnectWatcher
from mistral_api.upstream.client import ModelServerClient

Facts = list[tuple[str, str]]


def engine_facts(settings: Settings) -> Facts:
    """Return the facts, each with its name: of the engine of MODEL_SERVER_URL, and of the one that we start."""
    facts = [] if settings.model_server_url is None else _external(settings, settings.model_server_url)
    if settings.supervises_any:
        facts += _own(settings)
    return facts


def computes_on(devices: Iterable[Device]) -> str:
    """Return what an engine can compute on, in words."""
    names = [f"{each.name} ({each.id}, {format_size(each.total_bytes)})" for each in devices]
    return ", ".join(names) or "the processor"


def _external(settings: Settings, url: str) -> Facts:
    """Return what is known of an engine that somebody else runs: what it says itself, if it is llama.cpp."""
    with (
        closing(DisconnectWatcher()) as watcher,
        closing(ModelServerClient(settings, lambda: None, lambda: False, watcher)) as client,
    ):
        try:
            properties = client.get("/props")
        except ModelServerError as error:
            properties = {}
            version = f"unknown: {error.message}"
        else:
            build = properties.get("build_info") if isinstance(properties, dict) else None
            version = build if isinstance(build, str) else "unknown: it does not say"
    return [
        ("engine", "of MODEL_SERVER_URL, which somebody else runs"),
        ("version", version),
        ("origin", without_credentials(url)),
        ("device", "unknown: no server tells that; ask whoever runs it"),
    ]


def _own(settings: Settings) -> Facts:
    try:
        engine = choose_engine(settings, lambda: False)
    except StartError as error:
        return [("engine", f"none: {error}")]
    name = f"{engine.version} (cpu)" if engine.name == BUNDLED and engine.build_folder is None else engine.version
    version = name or "of an unknown version"
    return [
        ("engine", version if engine.name == BUNDLED else f"{engine.name} {version}"),
        ("origin", _origin(settings, engine)),
        ("device", _devices(engine)),
        *_in_effect(settings),
    ]


def _origin(settings: Settings, engine: Engine) -> str:
    if engine.name == BUNDLED:
        return str(engine.build_folder or _package_folder())
    return f"{engine.command[0]} ({'on PATH' if settings.llama_server_bin is None else 'LLAMA_SERVER_BIN'})"


def _package_folder() -> Path:
    """Return the folder of the CPU's build, which the environment has."""
    spec = importlib.util.find_spec(PACKAGE)
    return Path(spec.origin if spec and spec.origin else PACKAGE).parent


def _devices(engine: Engine) -> str:
    """Return what the engine says that it can compute on."""
    try:
        return computes_on(list_devices_of(engine.command, engine.question_environment()))
    except EngineBroken as error:
        return f"unknown: {error}" if engine.name != BUNDLED else f"nothing: {error}"


def _in_effect(settings: Settings) -> Facts:
    """Return what each model server that runs now has said of its load."""
    facts = []
    for spec in server_specs(settings):
        status = read_status(settings.data_dir, spec.name)
        if status is not None and status.state is State.READY and status.placement is not None:
            facts.append(("now", f"the {spec.label} computes {status.placement}"))
    return facts
