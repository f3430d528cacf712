"""The tools that OpenAI has published and the client runs, as functions with the parameters of their calls' items.

Source: openai/openai-python, src/openai/types/responses (3.57).
"""

from __future__ import annotations

from collections.abc import Mapping

from mistral_api.payload_types import JsonObject
from mistral_api.payload_types.chat import FunctionDefinition

_TEXT: JsonObject = {"type": "string"}
_COUNT: JsonObject = {"type": "integer", "minimum": 0}
_DIFF = (
    "The change in the V4A format: a line that begins with '+' is added, with '-' removed, with a space kept; '@@' "
    "begins a section. Every line of a new file begins with '+'. A file that is deleted needs none."
)
CLIENT_TOOLS: Mapping[str, FunctionDefinition] = {
    "shell": {
        "name": "shell",
        "description": "Run commands in a shell, one after the other.",
        "parameters": {
            "type": "object",
            "properties": {
                "commands": {"type": "array", "items": _TEXT, "minItems": 1},
                "timeout_ms": _COUNT | {"description": "For how many milliseconds the commands may run."},
                "max_output_length": _COUNT | {"description": "How many characters of their output are wanted."},
            },
            "required": ["commands"],
            "additionalProperties": False,
        },
    },
    "local_shell": {
        "name": "local_shell",
        "description": "Run a program on this machine. The command is its name and its arguments.",
        "parameters": {
            "type": "object",
            "properties": {
                "command": {"type": "array", "items": _TEXT, "minItems": 1},
                "working_directory": _TEXT,
                "env": {"type": "object", "additionalProperties": _TEXT},
                "timeout_ms": _COUNT | {"description": "For how many milliseconds the program may run."},
                "user": _TEXT,
            },
            "required": ["command"],
            "additionalProperties": False,
        },
    },
    "apply_patch": {
        "name": "apply_patch",
        "description": "Create, update or delete a file.",
        "parameters": {
            "type": "object",
            "properties": {
                "type": {"type": "string", "enum": ["create_file", "update_file", "delete_file"]},
                "path": _TEXT | {"description": "The path of the file, from the root of the workspace."},
                "diff": _TEXT | {"description": _DIFF},
            },
            "required": ["type", "path", "diff"],
            "additionalProperties": False,
        },
    },
    "tool_search": {
        "name": "tool_search",
        "description": "Find more tools by what they do.",
        "parameters": {
            "type": "object",
            "properties": {"query": _TEXT},
            "required": ["query"],
            "additionalProperties": False,
        },
    },
}
