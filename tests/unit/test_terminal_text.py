"""What a model says does nothing to a terminal; what a user types is read as meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mistral_api.terminal.commands import parse_command
from mistral_api.terminal.line_input import read_message
from mistral_api.terminal.printable import PrintableStream, printable, printable_line
from mistral_api.terminal.server import BadAddress, ServerAddress

_CONTROLS = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"]
# Any UTF-16, halves of characters included, as JSON may spell it; many of the characters that matter.
_ANY_TEXT = st.text(st.one_of(st.characters(), st.sampled_from([*_CONTROLS, "\n", "\t", "\ud83d", "\ude00", "\udc9b"])))


@pytest.mark.parametrize("control", _CONTROLS)
def test_no_control_character_reaches_the_terminal(control: str) -> None:
    shown = printable(f"a{control}[2Jb")
    assert control not in shown
    assert (shown[0], shown[-4:]) == ("a", "[2Jb")


def test_escape_sequences_are_shown() -> None:
    assert printable("\x1b]52;c;aGk=\x07") == "␛]52;c;aGk=␇"
    assert printable("\x9b2J") == "\\x9b2J"
    assert printable_line("two\n\tlines\x1b[A") == "two lines␛[A"


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        (["\ud83d", "\ude00"], ["", "😀"]),
        (["\ud83d", "x"], ["", "\ufffdx"]),
        (["ä\r", "\nö"], ["ä", "\nö"]),
        (["ä\r", "ö"], ["ä", "␍ö"]),
        (["\x1b", "[2J"], ["␛", "[2J"]),
    ],
)
def test_pieces_are_shown_as_soon_as_they_are_whole(pieces: list[str], shown: list[str]) -> None:
    stream = PrintableStream()
    assert [stream.feed(piece) for piece in pieces] == shown
    assert stream.end() == ""


@given(st.lists(_ANY_TEXT, max_size=6))
def test_text_is_the_same_wherever_it_is_cut(pieces: list[str]) -> None:
    stream = PrintableStream()
    shown = "".join([*map(stream.feed, pieces), stream.end()])
    assert shown == printable("".join(pieces))
    assert not set(shown) & set(_CONTROLS)
    shown.encode()  # no half of a character is left


@given(st.text())
def test_text_without_controls_stays_as_it_is(text: str) -> None:
    readable = "".join(character for character in text if character not in _CONTROLS)
    assert printable(readable) == readable


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["Hello"], "Hello"),
        (["one \\", "two\\", "three"], "one \ntwo\nthree"),
        (["C:\\\\"], "C:\\\\"),
        (['"""one', "", 'two"""'], "one\n\ntwo"),
        (['  """', "one \\", "two", '"""  '], "one \\\ntwo"),
        (['"""one"""'], "one"),
        (['""""""'], ""),
    ],
)
def test_messages_of_several_lines(typed: list[str], message: str) -> None:
    lines = iter(typed)
    assert read_message(lambda _prompt: next(lines)) == message
    assert list(lines) == []


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("/undo", ("undo", "")),
        ("/Save  my file.md ", ("save", "my file.md")),
        ("/system one\ntwo", ("system", "one\ntwo")),
        ("/?", ("?", "")),
        ("/etc/hosts is what?", None),
        (" /undo", None),
        ("/", None),
        ("// a comment", None),
        ("undo", None),
    ],
)
def test_commands_are_told_from_messages(line: str, command: tuple[str, str] | None) -> None:
    assert parse_command(line) == command


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("box:9000", "http://box:9000"),
        ("https://example.com/v1/", "https://example.com"),
        ("https://example.com/llm/v1", "https://example.com/llm"),
        ("http://[::1]:9000/", "http://[::1]:9000"),
        ("http://box:80", "http://box"),
        ("http://bücher.example:9000", "http://bücher.example:9000"),
    ],
)
def test_addresses_are_read_as_people_write_them(typed: str, meant: str) -> None:
    assert str(ServerAddress.parse(typed, is_own=False)) == meant


@pytest.mark.parametrize(
    "typed",
    ["", "ftp://box", "http://", "http://b ox", "http://box:x", "http://u:p@box", "box?x", f"http://{'a' * 70}", "//x"],
)
def test_what_is_no_address_is_refused(typed: str) -> None:
    with pytest.raises(BadAddress) as refused:
        ServerAddress.parse(typed, is_own=False)
    assert str(refused.value).endswith(".")
