"""The command line of the model server: every flag out of the settings.

The flags are llama-server's (llama.cpp, tools/server/README.md); the bundled engine takes the same.
"""

from __future__ import annotations

from pathlib import Path

from mistral_api.supervisor.engine import Engine
from mistral_api.supervisor.memory.ladder import MemoryStep
from mistral_api.supervisor.model import served_model_names
from mistral_api.supervisor.served import ServerSpec

# llama.cpp's own default for what it computes at once (-ub).
CPU_BATCH = 512


def server_command(served: ServerSpec, engine: Engine, model: Path, fit: MemoryStep) -> list[str]:
    """The whole command line; the port is always named, since an environment variable may name another."""
    settings = served.settings
    # Without a card a larger batch is no faster, and llama.cpp answers nothing and notices nobody's leaving in it.
    small = not fit.on_device and not served.whole_inputs
    options = {
        "-m": str(model),
        "--host": settings.model_server_host,
        "--port": str(settings.model_server_port),
        "-ngl": fit.gpu_layers,
        "-c": str(fit.context_size),
        "-b": str(min(settings.batch_size, CPU_BATCH) if small else settings.batch_size),
        "-t": str(settings.threads),
        "-np": str(settings.parallel),
        "--alias": ",".join(served_model_names(settings)),
        # One thread a connection: as many as the API may open, and some for probes.
        "--threads-http": str(settings.api_threads + 8),
    }
    if fit.cache_type is not None:
        # llama.cpp quantises the cache of values only with flash attention.
        options |= {"-ctk": fit.cache_type, "-ctv": fit.cache_type, "-fa": "on"}
    words = [word for option in options.items() for word in option]
    return [*engine.command, *words, *served.flags, "--metrics", "--slots"]
