"""Random texts within a constraint, from llama.cpp's real sampler on the model of trials."""

from __future__ import annotations

import json
import string
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mistral_api.constraints.trial_model import write_trial_model

# All tokens of the plain vocabulary are equally likely. What ends a text, and what the texts of tests are made of, is
# made likelier. Bytes that are no text by themselves are taken only where nothing else is possible.
_FIRST_BYTE, _FIRST_LETTER = 3, 3 + 256
_LETTERS = [[_FIRST_LETTER + string.printable.index(letter), 8.0] for letter in '"abfoxA1- .\\@']
_BYTES = [[_FIRST_BYTE + byte, -15.0] for byte in range(0x80, 0x100)]
_SAMPLING = {"samplers": ["temperature"], "temperature": 1.0, "logit_bias": _LETTERS + _BYTES}


class Sampler:
    """Owns the process in which llama.cpp samples."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, kind: str, body: dict[str, Any]) -> Any:
        """Return llama.cpp's answer to a request."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([kind, {**_SAMPLING, **body}]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def json_text(self, schema: dict[str, Any], seed: int, tokens: int = 60) -> str | None:
        """Return a JSON text within a schema, as it was generated; None where it has no end after so many tokens."""
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        messages = [{"role": "user", "content": "x"}]
        answer = self.ask(
            "chat_completions", {"messages": messages, "response_format": form, "seed": seed, "max_tokens": tokens}
        )
        assert "choices" in answer, answer
        choice = answer["choices"][0]
        return choice["message"]["content"] if choice["finish_reason"] == "stop" else None

    def grammar_of(self, schema: dict[str, Any]) -> str:
        """Return the grammar in GBNF that llama.cpp makes of a schema. Its rule ``schema`` is the value."""
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        body = {"messages": [{"role": "user", "content": "x"}], "response_format": form, "max_tokens": 1}
        answer = self.ask("chat_completions", {**body, "verbose": True})
        assert "__verbose" in answer, answer
        return str(answer["__verbose"]["generation_settings"]["grammar"]) + "schema ::= response-format-schema\n"

    def text(self, grammar: str, seed: int) -> str | None:
        """Return a text within a grammar; None where it has no end after 60 tokens."""
        answer = self.ask("completions", {"prompt": "x", "grammar": grammar, "seed": seed, "max_tokens": 60})
        assert "choices" in answer, answer
        choice = answer["choices"][0]
        return choice["text"] if choice["finish_reason"] == "stop" else None


@contextmanager
def running_sampler(folder: Path, model: Path | None = None) -> Iterator[Sampler]:
    """Run the process, on the vocabulary of a model or on a plain one."""
    command = [sys.executable, "-m", "tests.support.sampling_process", str(write_trial_model(model, folder))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8") as process:
        try:
            yield Sampler(process)
        finally:
            process.kill()
