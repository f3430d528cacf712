"""What the user of the terminal is at: the conversation that is open, and how it is asked and shown."""

from __future__ import annotations

from datetime import datetime

from mistral_api.payload_types import JsonObject
from mistral_api.terminal.conversation import Answer, Conversation, GenerationOptions, text_of
from mistral_api.terminal.printable import printable_line
from mistral_api.terminal.screen import AnswerDisplay, Screen, cut_reason, statistics
from mistral_api.terminal.server import Refused, Server

# So many messages of a conversation that is opened are shown.
SHOWN_MESSAGES = 6
_TITLE_WIDTH = 60


class Chat:
    """One conversation at a time on one server, shown on a screen. One thread uses it."""

    def __init__(self, server: Server, options: GenerationOptions, screen: Screen, *, shows_statistics: bool) -> None:
        self.server, self.options, self.screen = server, options, screen
        self.shows_statistics = shows_statistics
        self.conversation = Conversation(server, options)

    def ask(self, question: str) -> Answer:
        """Ask and show the answer. Raises ChatError."""
        display = AnswerDisplay(self.screen)
        try:
            answer = self.conversation.ask(question, display)
        finally:
            display.end()
        self._remark_on(answer)
        return answer

    def _remark_on(self, answer: Answer) -> None:
        reason = cut_reason(answer)
        if reason is not None:
            self.screen.remark(f"({reason})")
        if self.shows_statistics:
            self.screen.remark(f"({statistics(answer)})")

    def greet(self) -> None:
        """Say which model is there, and on which server. Raises ChatError."""
        served = self.server.models()
        wanted = next((model for model in served if self.options.model in (None, model.get("id"))), None)
        name = str(wanted.get("id")) if wanted else self.options.model or "No model"
        self.screen.notice(f"{name} on {self.server.address}. /help shows the commands, Ctrl-D ends.")
        if wanted and wanted.get("state") not in (None, "ready"):
            self.screen.notice(f"The model is not ready ({wanted['state']}); the first answer waits for it.")

    def begin(self, session_id: str | None = None) -> None:
        """Begin another conversation, or go on with one without a look at it."""
        self.conversation = Conversation(self.server, self.options, session_id)

    def open(self, session_id: str, shown: int = SHOWN_MESSAGES) -> None:
        """Open a conversation and show its newest messages. Raises ChatError, and then the former one stays open."""
        opened = Conversation(self.server, self.options, session_id)
        try:
            messages = opened.newest(shown)
        except Refused as error:
            if error.status != 403:
                raise
            self.screen.failure(f"{error} The conversation is open all the same.")
        else:
            if not messages:
                self.screen.notice(f"There is no conversation '{session_id}' yet; it begins here.")
            self.show(messages)
        self.conversation = opened

    def show(self, messages: list[JsonObject]) -> None:
        """Show messages as they were said."""
        for message in messages:
            self.screen.notice(f"{message.get('role')}:")
            self.screen.line(message_text(message))

    def show_conversations(self, words: str = "", limit: int = 20) -> None:
        """List the conversations used last, or those with these words. Raises ChatError."""
        found = self.server.conversations(limit, words)
        for conversation in found:
            self.screen.line(_listed(conversation))
        if not found:
            self.screen.notice("There are none.")


def message_text(message: JsonObject) -> str:
    """Return what a message says, and which tools it calls."""
    calls = message.get("tool_calls") or []
    functions = [call.get("function") for call in calls if isinstance(call, dict)]
    names = [str(function.get("name")) for function in functions if isinstance(function, dict)]
    return "\n".join([*filter(None, [text_of(message.get("content"))]), *(f"[calls {name}]" for name in names)])


def _listed(conversation: JsonObject) -> str:
    """Return a line: when, how many messages, which id, which title."""
    used, count = conversation.get("updated_at"), conversation.get("message_count")
    when = f"{datetime.fromtimestamp(used):%Y-%m-%d %H:%M}" if isinstance(used, (int, float)) else "-"
    title = printable_line(str(conversation.get("title") or "-"))
    shortened = title if len(title) <= _TITLE_WIDTH else f"{title[: _TITLE_WIDTH - 1]}…"
    return f"{when:16}  {count!s:>5}  {conversation.get('session_id')}  {shortened}"
