"""``mistral-api chat``: a conversation with the running server, in a terminal or through a pipe."""

from __future__ import annotations

import os
import sys
from typing import TextIO, TypedDict, Unpack

import click

from mistral_api.cli.command_settings import command_settings
from mistral_api.cli.errors import CannotGoOn
from mistral_api.settings import Settings
from mistral_api.system.addresses import url_of
from mistral_api.system.command_names import project_command
from mistral_api.system.exit_codes import INTERRUPTED
from mistral_api.terminal.chat import Chat
from mistral_api.terminal.conversation import GenerationOptions
from mistral_api.terminal.dialogue import hold_dialogue
from mistral_api.terminal.screen import Screen
from mistral_api.terminal.server import BadAddress, ChatError, NoServer, Refused, Server, ServerAddress
from mistral_api.terminal.single_answer import TooLong, answer_once, read_piped

KEY_VARIABLE, OTHER_KEY_VARIABLE, URL_VARIABLE = "MISTRAL_API_KEY", "OPENAI_API_KEY", "MISTRAL_API_URL"


class _ChatOptions(TypedDict):
    """The options of the command, without those for the server."""

    session_id: str | None
    goes_on: bool
    lists: bool
    system: str | None
    model: str | None
    temperature: float | None
    max_tokens: int | None
    shows_statistics: bool
    as_json: bool
    keeps_history: bool


@click.command()
@click.argument("question", required=False)
@click.option("--session", "session_id", metavar="ID", help="Go on with this conversation, or begin it.")
@click.option("-c", "--continue", "goes_on", is_flag=True, help="Go on with the conversation used last.")
@click.option("--list", "lists", is_flag=True, help="List the conversations used last, and end.")
@click.option("-s", "--system", metavar="TEXT", help="What the model is told to be.")
@click.option("-m", "--model", metavar="NAME", help="The model, where several are served.")
@click.option("--temperature", type=click.FloatRange(0, 2), help="How freely the model chooses its words.")
@click.option("--max-tokens", type=click.IntRange(1), help="The most tokens of an answer.")
@click.option("--stats", "shows_statistics", is_flag=True, help="Show tokens and times after each answer.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer to one question as a JSON object.")
@click.option("--input-history/--no-input-history", "keeps_history", default=True, help="Remember what you type.")
@click.option("--url", help="Another server than that of the settings.  [env var: MISTRAL_API_URL]")
def chat(question: str | None, url: str | None, **options: Unpack[_ChatOptions]) -> None:
    """Talk with the model of the running server, which records it as it does for every client.

    With a QUESTION, or one from a pipe, it prints the answer and ends. What comes through a pipe stands before the
    QUESTION. The key comes from MISTRAL_API_KEY, for the server of the settings also from ADMIN_API_KEY or
    OPENAI_API_KEY.

    Exit codes: 0 done, 1 no whole answer, 2 no server or a refusal, 130 stopped by Ctrl-C.
    """
    if options["session_id"] and options["goes_on"]:
        raise click.UsageError("--session and --continue exclude each other.")
    settings = command_settings()
    server = _server(settings, url)
    generation = GenerationOptions(options["model"], options["system"], options["temperature"], options["max_tokens"])
    running = Chat(server, generation, Screen(), shows_statistics=options["shows_statistics"])
    try:
        if not _run(running, question, options, settings.max_request_bytes):
            sys.exit(INTERRUPTED)
    except ChatError as error:
        cannot_go_on = isinstance(error, NoServer) or (isinstance(error, Refused) and 400 <= error.status < 500)
        raise (CannotGoOn if cannot_go_on else click.ClickException)(str(error)) from error
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _server(settings: Settings, url: str | None) -> Server:
    url = url or os.environ.get(URL_VARIABLE)
    if not url and not settings.api_port:
        raise CannotGoOn("API_PORT is 0, so nobody knows the port of the server: name its address with --url.")
    try:
        own = ServerAddress.parse(url_of(settings.api_host, settings.api_port or 1), is_own=True)
        address = ServerAddress.parse(url, is_own=False) if url else own
    except BadAddress as error:
        raise CannotGoOn(str(error)) from error
    is_own = (address.scheme, address.host, address.port, address.path) == (own.scheme, own.host, own.port, own.path)
    return Server(own if is_own else address, _key(settings, is_own=is_own), project_command("serve"))


def _key(settings: Settings, *, is_own: bool) -> str | None:
    """Return the key. What is meant for the server of the settings goes to no other one."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key and is_own:
        key = settings.admin_api_key or os.environ.get(OTHER_KEY_VARIABLE, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise CannotGoOn(f"{KEY_VARIABLE}: an API key has letters, digits and signs of ASCII alone.")
    return key or None


def _run(running: Chat, question: str | None, options: _ChatOptions, most_bytes: int) -> bool:
    """Do what the command line asks for. Return False where Ctrl-C ended the one answer. Raises ChatError."""
    if options["lists"]:
        running.show_conversations()
        return True
    session_id = _newest_session(running) if options["goes_on"] else options["session_id"]
    if question is None and not options["as_json"] and _is_terminal(sys.stdin) and running.screen.is_terminal:
        running.greet()
        if session_id is not None:
            running.open(session_id)
        hold_dialogue(running, keeps_history=options["keeps_history"])
        return True
    running.begin(session_id)
    return not answer_once(running, _whole_question(question, most_bytes), as_json=options["as_json"]).stopped


def _newest_session(running: Chat) -> str | None:
    newest = running.server.conversations(1)
    return str(newest[0].get("session_id")) if newest else None


def _whole_question(question: str | None, most_bytes: int) -> str:
    """Return the question with what comes through a pipe before it. Raises CannotGoOn where there is neither."""
    if question is None and _is_terminal(sys.stdin):
        click.echo("Type the question, then Ctrl-D.", err=True)
    piped = _piped(most_bytes) if question is None or not _is_terminal(sys.stdin) else ""
    whole = "\n\n".join(part.strip() for part in (piped, question or "") if part.strip())
    if not whole:
        raise CannotGoOn("There is no question.")
    return whole


def _piped(most_bytes: int) -> str:
    try:
        return read_piped(most_bytes)
    except TooLong as error:
        raise CannotGoOn(str(error)) from error


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and not stream.closed and stream.isatty()
