"""The log of a process: where its events go, and that writing one never fails.

A server logs to the standard error stream and into a file of its own below DATA_DIR/logs; a command logs warnings to
the standard error stream, since its standard output is its answer. A disk that is full and a terminal that is gone
cost lines, and nothing else: a server's lines are queued, and threads write them (:mod:`.line_writer`), one for the
console and one for the file. What ends a thread or a process unexpectedly is a line too.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TextIO, cast

from mistral_api.system.console_output import ConsoleOutput, QueuedStream
from mistral_api.system.exception_text import exception_text
from mistral_api.system.line_writer import LineWriter, Write
from mistral_api.system.log_file import FILE_BYTES, LogFileHandler
from mistral_api.system.log_format import LINE_LENGTH, Fields, formatter

log = logging.getLogger(__name__)

WARNING_SECONDS = 60.0
# The loggers whose level is LOG_LEVEL. A module that is run by ``python -m`` is called __main__. Other loggers log
# warnings: at INFO and DEBUG, libraries say what tells an operator nothing, or what quotes requests.
OUR_LOGGERS = ("mistral_api", "llama.cpp", "printed", "__main__")
# waitress warns of every single request that has to wait for a thread.
_QUIET_LOGGERS = ("waitress.queue",)


@dataclass(frozen=True, slots=True)
class LogOptions:
    """How a server logs: LOG_LEVEL, LOG_FORMAT, the folder of the files, and the size at which one is set aside.

    Without a folder, or with the size 0, there are no files.
    """

    level: str = "INFO"
    form: str = "text"
    folder: Path | None = None
    file_bytes: int = FILE_BYTES


def configure_server_log(options: LogOptions, name: str, *, console: bool = True) -> None:
    """Log to the standard error stream and into the file ``name.log``, unless logging is configured already.

    ``console``: whether there is a standard error stream. What is printed is queued with the lines, in their order.
    """
    if logging.getLogger().handlers:
        return
    handlers: list[logging.Handler] = []
    # At the end of a process the last one is closed first: the console tells the file what it could not write.
    if options.folder is not None and options.file_bytes:
        file = LogFileHandler(options.folder, name, ThrottledWarning(log), options.file_bytes)
        handlers.append(QueuedHandler(LineWriter("log-file", f"the log in '{options.folder}'"), file.write, file.close))
    if console and sys.stderr is not None:
        writer = LineWriter("log-console", "the console")
        handlers.append(QueuedHandler(writer, ConsoleOutput(sys.stderr).write))
        sys.stdout, sys.stderr = _queued(sys.stdout, writer), _queued(sys.stderr, writer)
    _configure(options.level, options.form, handlers)


def configure_command_log() -> None:
    """Log warnings to the standard error stream, unless logging is configured already.

    With LOG_LEVEL=DEBUG in the environment the frames of exceptions are shown.
    """
    if not logging.getLogger().handlers:
        level = os.environ.get("LOG_LEVEL", "").strip().upper()
        _configure("DEBUG" if level == "DEBUG" else "WARNING", "text", [ConsoleHandler(logging.WARNING)])


def _configure(level: str, form: str, handlers: list[logging.Handler]) -> None:
    root, shared = logging.getLogger(), formatter(form, stacks=level == "DEBUG")
    for handler in handlers:
        handler.setFormatter(shared)
        root.addHandler(handler)
    root.setLevel(max(logging.WARNING, logging.getLevelName(level)))
    for name in OUR_LOGGERS:
        logging.getLogger(name).setLevel(level)
    for name in _QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("waitress").addFilter(_tells_an_operator)
    logging.captureWarnings(True)
    # No line names them, and each costs every record a call of the system or a search.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    # The handlers of libraries print no traceback where they fail. Ours do not fail.
    logging.raiseExceptions = False
    _install_hooks()


def _tells_an_operator(record: logging.LogRecord) -> bool:
    """Whether a line of waitress is worth a line. waitress-serve lets those at INFO through, which quote paths too."""
    return record.levelno >= logging.WARNING or record.msg.startswith("Serving on ")


class ConsoleHandler(logging.Handler):
    """Writes events to the standard error stream, as long as there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one event."""
        stream = sys.stderr
        if stream is None:
            return
        try:
            stream.write(self.format(record) + "\n")
            stream.flush()
        except (OSError, ValueError):
            # The terminal is gone, the disk behind it is full, or the stream is closed: nobody could be told.
            return


class QueuedHandler(logging.Handler):
    """Has a thread write events. Owns its :class:`LineWriter`."""

    def __init__(self, writer: LineWriter, write: Write, close: Callable[[], None] | None = None) -> None:
        """``write`` and ``close``: of what the thread writes to. It is closed after the last line."""
        super().__init__()
        self._writer = writer
        self._write = write
        self._close_target = close

    def emit(self, record: logging.LogRecord) -> None:
        """Queue one event. What may be another one later, or is large, is made a line now."""
        self._writer.put(self._write, partial(self._line, record) if _stays(record) else self._line(record))

    def _line(self, record: logging.LogRecord) -> str:
        return self.format(record) + "\n"

    def close(self) -> None:
        """Write what waits, for a bounded time. ``logging`` calls this at every end of a process but a crash."""
        if self._writer.close() and self._close_target is not None:
            self._close_target()
        super().close()


def _stays(record: logging.LogRecord) -> bool:
    """Whether an event is the same in a moment, and small: no object that changes, no exception, no long text."""
    if record.exc_info:
        return False
    if isinstance(record.msg, Fields):
        return True
    arguments = record.args if isinstance(record.args, tuple) else (record.args,)
    return all(_is_fixed(each) for each in (record.msg, *arguments))


def _is_fixed(value: object) -> bool:
    return len(value) <= LINE_LENGTH if isinstance(value, str) else value is None or isinstance(value, int | float)


def _queued(stream: TextIO | None, writer: LineWriter) -> TextIO:
    """Return a standard stream that never fails nor waits; None, where the process has none, as it is."""
    return cast("TextIO", stream if stream is None else QueuedStream(ConsoleOutput(stream), writer))


def _install_hooks() -> None:
    """Have what nobody has caught logged on one line, in the place of Python's traceback."""
    sys.excepthook = _log_end_of_process
    threading.excepthook = _log_end_of_thread
    sys.unraisablehook = _log_ignored


def _log_end_of_process(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if hasattr(sys, "ps1"):  # a prompt, such as that of ``flask shell``: what somebody typed has failed, and no process
        sys.__excepthook__(kind, error, trace)
    elif not issubclass(kind, KeyboardInterrupt):
        log.critical("ended by an unexpected error: %s", _text(error))


def _log_end_of_thread(failure: threading.ExceptHookArgs) -> None:
    if failure.exc_value is not None and not isinstance(failure.exc_value, SystemExit):
        name = failure.thread.name if failure.thread is not None else "unknown"
        log.error("the thread %s was ended by an unexpected error: %s", name, _text(failure.exc_value))


def _log_ignored(failure: sys.UnraisableHookArgs) -> None:
    if failure.exc_value is not None:
        log.warning("an error could not be raised: %s", _text(failure.exc_value))


def _text(error: BaseException) -> str:
    return exception_text(error, stack=log.isEnabledFor(logging.DEBUG))


class ThrottledWarning:
    """A warning that is logged once a minute at most, however often it is raised."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._silent_until = float("-inf")

    def __call__(self, text: str, *arguments: object) -> None:
        """Log the warning, unless one was logged less than a minute ago."""
        if time.monotonic() >= self._silent_until:
            self._silent_until = time.monotonic() + WARNING_SECONDS
            self._log.warning(text, *arguments)
