"""The commands of a conversation in the terminal: lines that begin with a slash."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mistral_api.payload_types import JsonObject
from mistral_api.terminal.chat import Chat
from mistral_api.terminal.saved_conversation import save
from mistral_api.terminal.server import ChatError

# A path such as /etc/hosts is no command.
_COMMAND = re.compile(r"/([a-z?]+)(?:\s+(.*))?\s*", re.IGNORECASE | re.DOTALL)
_HELP_AFTER = (
    'A line that ends with \\ goes on in the next one; """ begins and ends a message of several lines.\n'
    "A message that begins with / takes a space before it. Ctrl-C stops an answer, Ctrl-D ends."
)


def parse_command(line: str) -> tuple[str, str] | None:
    """Return the name of a command in lower case, and its argument; None for a message to the model."""
    matched = _COMMAND.fullmatch(line.rstrip())
    return None if matched is None else (matched[1].lower(), (matched[2] or "").strip())


@dataclass(frozen=True, slots=True)
class Command:
    """One command; ``argument`` is as the help shows it."""

    name: str
    argument: str
    meaning: str
    run: Callable[[str], None]


class Commands:
    """The commands on one chat."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self.is_over = False
        self._commands = (
            Command("undo", "", "takes your last question and its answer back, on the server too", self._undo),
            Command("retry", "", "takes the last answer back and asks again", self._retry),
            Command("history", "[N]", "shows this conversation, or its last N messages", self._history),
            Command("sessions", "[WORDS]", "lists the conversations used last, or those with these words", self._list),
            Command("open", "ID", "goes on with another conversation", self._open),
            Command("new", "", "begins another conversation", self._new),
            Command(
                "system", "[TEXT]", "tells the model what to be from now on, or shows what it was told", self._system
            ),
            Command("model", "[NAME]", "asks another model from now on, or lists them", self._model),
            Command("stats", "", "shows tokens and times after each answer, or no longer", self._stats),
            Command("save", "FILE", "writes this conversation to a file: Markdown, or JSON for *.json", self._save),
            Command("help", "", "shows this", self._help),
            Command("bye", "", "ends", self._bye),
        )
        self._by_name = {each.name: each for each in self._commands}
        self._by_name |= {"exit": self._by_name["bye"], "quit": self._by_name["bye"], "?": self._by_name["help"]}

    @property
    def names(self) -> list[str]:
        """The commands as they are typed."""
        return [f"/{each.name}" for each in self._commands]

    def run(self, name: str, argument: str) -> None:
        """Run a command. Raises ChatError."""
        command = self._by_name.get(name)
        if command is None:
            self._chat.screen.failure(f"There is no /{name}; /help shows what there is.")
        elif command.argument and not command.argument.startswith("[") and not argument:
            self._chat.screen.failure(f"/{name} needs {command.argument}.")
        else:
            command.run(argument)

    def _undo(self, _argument: str) -> None:
        question = self._chat.conversation.take_back()
        self._chat.screen.notice("There is nothing to take back." if question is None else f"Taken back: {question}")

    def _retry(self, _argument: str) -> None:
        question = self._chat.conversation.take_back()
        if question is None:
            self._chat.screen.notice("There is nothing to ask again.")
        else:
            self._chat.screen.notice(f">>> {question}")
            self._chat.ask(question)

    def _history(self, argument: str) -> None:
        if argument and not (argument.isdecimal() and 0 < int(argument) <= 500):
            self._chat.screen.failure("/history takes a number from 1 to 500.")
            return
        messages = self._messages(int(argument) if argument else None)
        self._chat.show(messages)
        if not messages:
            self._chat.screen.notice("Nothing has been said yet.")

    def _messages(self, newest: int | None = None) -> list[JsonObject]:
        """Return messages of the conversation; what was said here where the server does not have them, or show them."""
        conversation = self._chat.conversation
        said = [message for turn in conversation.turns for message in turn.messages()]
        try:
            return (conversation.all_messages() if newest is None else conversation.newest(newest)) or said
        except ChatError as error:
            if not said:
                raise
            self._chat.screen.failure(f"{error} What was said here:")
            return said

    def _list(self, words: str) -> None:
        self._chat.show_conversations(words)

    def _open(self, session_id: str) -> None:
        self._chat.open(session_id)

    def _new(self, _argument: str) -> None:
        self._chat.begin()
        self._chat.screen.notice("A new conversation.")

    def _system(self, text: str) -> None:
        if text:
            self._chat.options.system = text
        self._chat.screen.notice(self._chat.options.system or "The model was told nothing here.")

    def _model(self, name: str) -> None:
        served = [str(model.get("id")) for model in self._chat.server.models()]
        if name in served:
            self._chat.options.model = name
        elif name:
            self._chat.screen.failure(f"There is no model '{name}'.")
        current = self._chat.options.model or (served[0] if served else None)
        for each in served:
            self._chat.screen.line(f"{'*' if each == current else ' '} {each}")

    def _stats(self, _argument: str) -> None:
        self._chat.shows_statistics = not self._chat.shows_statistics
        self._chat.screen.notice("Statistics on." if self._chat.shows_statistics else "Statistics off.")

    def _save(self, name: str) -> None:
        path = Path(name).expanduser()
        messages = self._messages()
        if not messages:
            self._chat.screen.failure("Nothing has been said yet.")
            return
        try:
            save(path, self._chat.conversation.session_id, messages)
        except OSError as error:
            self._chat.screen.failure(f"{path}: {error.strerror}.")
        else:
            self._chat.screen.notice(f"{len(messages)} messages written to {path}.")

    def _help(self, _argument: str) -> None:
        for each in self._commands:
            self._chat.screen.line(f"{f'/{each.name} {each.argument}':19} {each.meaning}")
        self._chat.screen.line(_HELP_AFTER)

    def _bye(self, _argument: str) -> None:
        self.is_over = True
