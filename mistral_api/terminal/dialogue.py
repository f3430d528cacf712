"""The dialogue in a terminal: reads what the user types until there is no more, and asks or obeys."""

from __future__ import annotations

from mistral_api.system.command_names import installed_command
from mistral_api.terminal.chat import Chat
from mistral_api.terminal.commands import Commands, parse_command
from mistral_api.terminal.line_input import LineEditor, read_message
from mistral_api.terminal.server import ChatError


def hold_dialogue(chat: Chat, *, keeps_history: bool) -> None:
    """Talk until Ctrl-D or ``/bye``. What goes wrong on the way is a sentence, and the dialogue goes on."""
    commands = Commands(chat)
    editor = LineEditor(commands.names, chat.screen.failure, keeps_history=keeps_history)
    while not commands.is_over:
        try:
            message = read_message(editor.read_line)
        except KeyboardInterrupt:
            chat.screen.notice("\n(Ctrl-D or /bye ends)")
            continue
        except EOFError:
            chat.screen.line("")
            break
        _take(chat, commands, message)
    if chat.conversation.turns:
        again = installed_command(f"mistral-api chat --session {chat.conversation.session_id}")
        chat.screen.notice(f"This conversation goes on with: {again}")


def _take(chat: Chat, commands: Commands, message: str) -> None:
    """Ask what was typed, or run it where it is a command."""
    command = parse_command(message)
    try:
        if command is not None:
            commands.run(*command)
        elif message.strip():
            chat.ask(message.strip())
    except ChatError as error:
        chat.screen.failure(str(error))
    except KeyboardInterrupt:
        chat.screen.notice("\n(interrupted)")
