"""A file with conversations: which format it has, and the conversations in it, one after another.

A large file costs no more memory than its largest conversation: arrays are read by ijson, lines one by one.
"""

from __future__ import annotations

import contextlib
import io
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, cast

import ijson
import orjson

from mistral_api.conversations.importing import chatgpt, librechat, open_webui, own_export
from mistral_api.conversations.importing.chatgpt import AttachmentStore
from mistral_api.conversations.importing.imported import ImportedConversation, MalformedConversation
from mistral_api.conversations.importing.source_tree import ImportTarget, SourceConversation, imported_conversation
from mistral_api.conversations.importing.source_values import object_of, optional_text, plain_numbers
from mistral_api.payload_types import JsonObject

FORMATS: Final = (
    own_export.FORMAT,
    own_export.FINE_TUNING_FORMAT,
    open_webui.FORMAT,
    librechat.FORMAT,
    chatgpt.FORMAT,
)
_LINE_FORMATS = (own_export.FORMAT, own_export.FINE_TUNING_FORMAT)
EXPECTED = (
    "lines of JSON from 'mistral-api export', a chat export of Open WebUI or LibreChat, or ChatGPT's data export "
    "(the ZIP, or its conversations.json or conversations-000.json …)"
)
# The first of these names that an object has says which format it is of.
_TELLING_NAMES = {
    "session_id": own_export.FORMAT,
    "mapping": chatgpt.FORMAT,
    "chat": open_webui.FORMAT,
    "history": open_webui.FORMAT,
    "conversationId": librechat.FORMAT,
}
_CHATGPT_ENTRY = re.compile(r"(?:.*/)?conversations(?:-\d+)?\.json")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_READ_BYTES = 1 << 16
_ENCRYPTED = 1  # a flag of an entry (PKWARE's APPNOTE, section 4.4.4)


class UnreadableFile(Exception):
    """A file has no known format, or cannot be read any further. The message is a sentence."""


@dataclass(frozen=True, slots=True)
class SkippedConversation:
    """A conversation that was not imported: where it stands in its file, and why, as the predicate of a sentence."""

    place: str
    reason: str


class _CountedStream(io.RawIOBase):
    """Reads a binary stream, and tells how many bytes have been read."""

    def __init__(self, stream: IO[bytes], count: Callable[[int], None]) -> None:
        self._stream = stream
        self._count = count

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer, and count. Raises as the stream does."""
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        self._count(len(data))
        return len(data)


class ExportFile:
    """One file of conversations. It opens the file for each reading, and closes it afterwards."""

    def __init__(self, path: Path, format_name: str | None = None) -> None:
        """Look at the beginning of the file. Raises UnreadableFile, and OSError.

        ``format_name`` is the format where the caller knows it.
        """
        self.path = path
        if not path.is_file():
            raise UnreadableFile(f"{path.name} is no file that can be read more than once.")
        self._read = 0
        self._archived = zipfile.is_zipfile(path)
        if self._archived:
            if format_name not in (None, chatgpt.FORMAT):
                raise UnreadableFile(f"{path.name} is a ZIP, as ChatGPT's data export is; expected: {EXPECTED}.")
            self.size = self._look_into_archive()
            self.format = chatgpt.FORMAT
        else:
            self.size = path.stat().st_size
            self.format = format_name or self._recognise()

    @property
    def received(self) -> int:
        """How many of the ``size`` bytes have been read."""
        return self._read

    def conversations(self, target: ImportTarget) -> Iterator[ImportedConversation | SkippedConversation]:
        """Yield the conversations. Raises UnreadableFile where the rest cannot be read, and OSError."""
        self._read = 0
        with _sentences_about(self.path.name):
            for name, stream, attachments in self._streams():
                read = _Reader(self.format, target, attachments).read
                for place, value in _values(name, stream, self.format):
                    yield _conversation(read, place, value)

    def _streams(self) -> Iterator[tuple[str, io.BufferedReader, AttachmentStore]]:
        """Yield the streams with conversations, each with its name. Raises UnreadableFile."""
        if not self._archived:
            with self.path.open("rb") as file:
                yield self.path.name, self._counted(file), AttachmentStore()
            return
        with zipfile.ZipFile(self.path) as archive:
            attachments = AttachmentStore(archive)
            for entry in _conversation_entries(archive):
                if entry.flag_bits & _ENCRYPTED:
                    raise UnreadableFile(f"{self.path.name} has a password; unpack it, and import what is in it.")
                with archive.open(entry) as stream:
                    yield f"{self.path.name}, {entry.filename}", self._counted(stream), attachments

    def _counted(self, stream: IO[bytes]) -> io.BufferedReader:
        return io.BufferedReader(_CountedStream(stream, self._count), _READ_BYTES)

    def _count(self, number: int) -> None:
        self._read += number

    def _look_into_archive(self) -> int:
        """Return the size of the conversations in a ZIP. Raises UnreadableFile where there are none."""
        with _sentences_about(self.path.name), zipfile.ZipFile(self.path) as archive:
            sizes = [entry.file_size for entry in _conversation_entries(archive)]
        if not sizes:
            raise UnreadableFile(f"{self.path.name} is a ZIP without conversations.json; expected: {EXPECTED}.")
        return sum(sizes)

    def _recognise(self) -> str:
        """Return the format by the names in the first conversations. Raises UnreadableFile."""
        if self.size == 0:
            return own_export.FORMAT  # an export of nothing
        for _, stream, _ in self._streams():
            found = _format_of(stream)
            if found is not None:
                return found
        raise UnreadableFile(f"{self.path.name} has no format that can be imported; expected: {EXPECTED}.")


class _Reader:
    def __init__(self, format_name: str, target: ImportTarget, attachments: AttachmentStore) -> None:
        self._format = format_name
        self._target = target
        self._attachments = attachments

    def read(self, value: JsonObject) -> ImportedConversation:
        """Return a value as a conversation. Raises MalformedConversation."""
        if self._format == own_export.FORMAT:
            return own_export.read_archive_line(value)
        if self._format == own_export.FINE_TUNING_FORMAT:
            return own_export.read_fine_tuning_line(value, self._target)
        return imported_conversation(self._source(value), self._target)

    def _source(self, value: JsonObject) -> SourceConversation:
        if self._format == chatgpt.FORMAT:
            return chatgpt.read_conversation(value, self._attachments)
        read = open_webui.read_conversation if self._format == open_webui.FORMAT else librechat.read_conversation
        return read(value)


def _conversation(
    read: Callable[[JsonObject], ImportedConversation], place: str, value: JsonObject | MalformedConversation
) -> ImportedConversation | SkippedConversation:
    if isinstance(value, MalformedConversation):
        return SkippedConversation(place, str(value))
    try:
        return read(value)
    except MalformedConversation as error:
        return SkippedConversation(_titled(place, value), str(error))


@contextlib.contextmanager
def _sentences_about(name: str) -> Iterator[None]:
    """Raise UnreadableFile for a ZIP that cannot be read."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError) as error:
        raise UnreadableFile(f"{name} is a damaged ZIP, or packed in a way that cannot be read: {error}.") from error


def _conversation_entries(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """Return the entries with ChatGPT's conversations, in the order of their numbers."""
    entries = [entry for entry in archive.infolist() if _CHATGPT_ENTRY.fullmatch(entry.filename)]
    return sorted((each for each in entries if "__MACOSX" not in each.filename), key=lambda each: each.filename)


def _first_byte(stream: io.BufferedReader) -> bytes:
    """Read up to the first byte that means anything, and return it without reading it."""
    if stream.peek(3).startswith(_BYTE_ORDER_MARK):
        stream.read(3)
    while (byte := stream.peek(1)[:1]).isspace():
        stream.read(1)
    return byte


def _format_of(stream: io.BufferedReader) -> str | None:
    """Return the format that the names in the first objects tell, None for no known one."""
    depth, top = 0, 1 if _first_byte(stream) == b"[" else 0
    names: set[str] = set()
    try:
        for event, value in ijson.basic_parse(stream, buf_size=_READ_BYTES, multiple_values=True):
            depth += (event in ("start_map", "start_array")) - (event in ("end_map", "end_array"))
            if event == "map_key" and depth == top + 1:
                names.add(value)
                if value in _TELLING_NAMES:
                    return _TELLING_NAMES[value]
            elif event == "end_map" and depth == 0 and "messages" in names:
                return own_export.FINE_TUNING_FORMAT
    except ijson.JSONError:
        return None
    return None


def _values(
    name: str, stream: io.BufferedReader, format_name: str
) -> Iterator[tuple[str, JsonObject | MalformedConversation]]:
    """Yield the objects of a stream, each with its place. Raises UnreadableFile where the rest is no JSON."""
    lines = format_name in _LINE_FORMATS
    for place, value in _lines(stream) if lines else _elements(name, stream):
        yield f"{name}, {place}", cast("JsonObject", value) if isinstance(value, dict) else _no_object(value)


def _no_object(value: object) -> MalformedConversation:
    return value if isinstance(value, MalformedConversation) else MalformedConversation("is no object")


def _lines(stream: io.BufferedReader) -> Iterator[tuple[str, object]]:
    _first_byte(stream)
    for number, line in enumerate(stream, 1):
        if line.strip():
            yield f"line {number}", _parsed(line)


def _parsed(line: bytes) -> object:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return MalformedConversation(f"is no JSON ({error})")


def _elements(name: str, stream: io.BufferedReader) -> Iterator[tuple[str, object]]:
    """Yield the elements of an array, or the objects that follow one another."""
    array = _first_byte(stream) == b"["
    number = 0
    try:
        values = ijson.items(stream, "item" if array else "", buf_size=_READ_BYTES, multiple_values=not array)
        for number, value in enumerate(values, 1):
            yield f"conversation {number}", plain_numbers(value) if isinstance(value, dict) else value
    except ijson.JSONError as error:
        raise UnreadableFile(
            f"{name}: the JSON is broken behind conversation {number}; the rest is skipped."
        ) from error


def _titled(place: str, value: JsonObject) -> str:
    title = optional_text(value.get("title")) or optional_text(object_of(value.get("chat")).get("title"))
    return f"{place} ('{title[:80]}')" if title else place
