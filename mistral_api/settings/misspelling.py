"""Names that look like settings and are none, with the nearest setting.

In ``.env`` that is every name that neither we nor a known other program reads. In the environment, where most variables
are other programs', it is a name that differs from a setting's by a slip of the keyboard.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from mistral_api.settings.declaration import setting_fields
from mistral_api.settings.dotenv_file import LLAMA_PREFIXES, DotenvFile
from mistral_api.system.project import PROJECT_VARIABLE

_NAMES = [name for name, _ in setting_fields()]
# How alike two names must be (difflib's ratio). Two letters exchanged in a name of seven give 0.857.
_ALIKE_IN_DOTENV, _ALIKE_IN_ENVIRONMENT = 0.6, 0.85
# What other servers of models call a setting of ours.
_CALLED_HERE = {
    "HOST": "API_HOST",
    "PORT": "API_PORT",
    "API_KEY": "ADMIN_API_KEY",
    "DB_URL": "DATABASE_URL",
    "POSTGRES_URL": "DATABASE_URL",
    "SQLALCHEMY_DATABASE_URI": "DATABASE_URL",
    "MODEL": "MODEL_PATH",
    "MODEL_FILE": "MODEL_PATH",
    "MODEL_NAME": "MODEL_ALIAS",
    "N_CTX": "CONTEXT_SIZE",
    "CTX_SIZE": "CONTEXT_SIZE",
    "CONTEXT_LENGTH": "CONTEXT_SIZE",
    "N_BATCH": "BATCH_SIZE",
    "N_THREADS": "THREADS",
    "N_PARALLEL": "PARALLEL",
    "DEBUG": "LOG_LEVEL",
}
# Variables that other programs read from the same file or environment.
_OF_OTHERS = frozenset(
    (
        *("PATH", "HOME", "USER", "SHELL", "TZ", "LANG", "LANGUAGE", "TMPDIR", "TEMP", "TMP", "VIRTUAL_ENV"),
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
        *("LLAMA_API_KEY", "LLAMA_CACHE", "LD_LIBRARY_PATH", "LD_PRELOAD", "MISTRAL_API_SITE", PROJECT_VARIABLE),
    )
)
_PREFIXES_OF_OTHERS = (
    *LLAMA_PREFIXES,
    *("LLAMA_LOG_", "GGML_", "CUDA_", "CUBLAS_", "NVIDIA_", "NCCL_", "HIP_", "HSA_", "ROCR_", "ROCM_", "AMD_"),
    *("VK_", "MESA_", "SYCL_", "ONEAPI_", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "MALLOC_"),
    *("FLASK_", "WERKZEUG_", "SQLALCHEMY_", "GUNICORN_", "UVICORN_", "PYTHON", "PIP_", "UV_", "PYTEST_", "COVERAGE_"),
    *("PG", "POSTGRES_", "PGADMIN_", "REDIS_", "HF_", "HUGGINGFACE_", "HUGGING_FACE_", "TRANSFORMERS_"),
    *("OPENAI_", "ANTHROPIC_", "MISTRAL_", "OLLAMA_", "LANGCHAIN_", "LANGSMITH_", "WEBUI_", "TOKENIZERS_"),
    *("OTEL_", "PROMETHEUS_", "GRAFANA_", "GF_", "SENTRY_", "CADDY_", "COMPOSE_", "DOCKER_", "BUILDKIT_"),
    *("SSL_", "LC_", "XDG_", "GIT_", "AWS_", "AZURE_", "GOOGLE_", "GITHUB_", "CI_", "TEST_"),
)


@dataclass(frozen=True, slots=True)
class Misspelling:
    """A name that is no setting; the line of ``.env`` that has it, or None; and the setting that may be meant."""

    name: str
    line: int | None
    nearest: str | None

    def __str__(self) -> str:
        """Return it in words, without its value."""
        where = "in the environment" if self.line is None else f"in .env line {self.line}"
        meant = f" (did you mean {self.nearest}?)" if self.nearest else ""
        return f"{self.name} {where}{meant}"


def find_misspellings(dotenv: DotenvFile, environment: Mapping[str, str]) -> tuple[Misspelling, ...]:
    """Return the names that are no settings, those of ``.env`` first."""
    return (*_in_dotenv(dotenv), *_in_environment(name for name in environment if name not in dotenv.values))


def sentence_of(misspellings: Iterable[Misspelling]) -> str:
    """Return one line for the operator about all of them."""
    return f"No settings of this server, so they have no effect: {', '.join(map(str, misspellings))}."


# What this process has found since it started, and whether that has been said.
_found: dict[Misspelling, bool] = {}


def note_misspellings(misspellings: Iterable[Misspelling]) -> None:
    """Keep misspellings until there is a log, or a console, for :func:`warn_of_misspellings`."""
    for each in misspellings:
        _found.setdefault(each, False)


def warn_of_misspellings(say: Callable[[str], object]) -> None:
    """Say in one line which names were found that are no settings, each once in the life of this process."""
    new = [each for each, is_said in _found.items() if not is_said]
    _found.update(dict.fromkeys(new, True))
    if new:
        say(sentence_of(new))


def _in_dotenv(dotenv: DotenvFile) -> Iterator[Misspelling]:
    for name, value in dotenv.values.items():
        if name not in _NAMES and not _is_of_others(name.upper()):
            nearest = _CALLED_HERE.get(name.upper()) or _nearest(name, _ALIKE_IN_DOTENV)
            yield Misspelling(name, value.line, nearest)


def _in_environment(names: Iterable[str]) -> Iterator[Misspelling]:
    for name in sorted(names):
        if name not in _NAMES and not _is_of_others(name.upper()):
            nearest = _nearest(name, _ALIKE_IN_ENVIRONMENT)
            if nearest is not None:
                yield Misspelling(name, None, nearest)


def _is_of_others(name: str) -> bool:
    return name in _OF_OTHERS or name.startswith(_PREFIXES_OF_OTHERS)


def _nearest(name: str, alike: float) -> str | None:
    return next(iter(difflib.get_close_matches(name.upper(), _NAMES, 1, alike)), None)
