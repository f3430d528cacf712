"""The content of input items: a string, or parts (OpenAI's ``InputContent`` and ``OutputContent``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mistral_api.schemas.fields import check_array, check_choice, check_object, check_text
from mistral_api.schemas.issues import refuse, refuse_missing, refuse_type

INPUT_PARTS = ("input_text", "input_image", "input_file", "input_audio")
ASSISTANT_PARTS = ("output_text", "refusal", *INPUT_PARTS)


def require(value: dict[str, Any], names: tuple[str, ...], path: str) -> None:
    """Refuse an object that lacks one of these fields, or has null for it."""
    for name in names:
        if value.get(name) is None:
            refuse_missing(f"{path}.{name}")


def check_content(content: Any, kinds: tuple[str, ...], path: str, low: int) -> None:
    """A string, or parts of these kinds."""
    if isinstance(content, str):
        return
    if not isinstance(content, list):
        refuse_type("a string or an array of parts", content, path)
    check_array(content, low, path=path)
    for index, part in enumerate(content):
        where = f"{path}[{index}]"
        check_object(part, where)
        require(part, ("type",), where)
        check_choice(part["type"], kinds, f"{where}.type")
        _PARTS[part["type"]](part, where)


def _check_text_part(part: dict[str, Any], path: str) -> None:
    require(part, ("text",), path)
    check_text(part["text"], path=f"{path}.text")


def _check_refusal(part: dict[str, Any], path: str) -> None:
    require(part, ("refusal",), path)
    check_text(part["refusal"], path=f"{path}.refusal")


def _check_image(part: dict[str, Any], path: str) -> None:
    _refuse_file_id(part, path)
    require(part, ("image_url",), path)
    check_text(part["image_url"], 1, path=f"{path}.image_url")
    if part.get("detail") is not None:
        check_choice(part["detail"], ("low", "high", "auto", "original"), f"{path}.detail")


def _check_file(part: dict[str, Any], path: str) -> None:
    _refuse_file_id(part, path)
    for name in ("file_data", "file_url", "filename"):
        if part.get(name) is not None:
            check_text(part[name], 1, path=f"{path}.{name}")
    if part.get("file_data") is None and part.get("file_url") is None:
        refuse_missing(f"{path}.file_data")


def _check_audio(part: dict[str, Any], path: str) -> None:
    require(part, ("input_audio",), path)
    audio, where = part["input_audio"], f"{path}.input_audio"
    check_object(audio, where)
    require(audio, ("data", "format"), where)
    for name in ("data", "format"):
        check_text(audio[name], 1, path=f"{where}.{name}")


def _refuse_file_id(part: dict[str, Any], path: str) -> None:
    if part.get("file_id") is not None:
        text = "Unsupported value for '{param}': this server keeps no uploaded files; send the data itself, or a URL."
        refuse("unsupported_value", text, f"{path}.file_id")


_PARTS: dict[str, Callable[[dict[str, Any], str], None]] = {
    "input_text": _check_text_part,
    "output_text": _check_text_part,
    "refusal": _check_refusal,
    "input_image": _check_image,
    "input_file": _check_file,
    "input_audio": _check_audio,
}
