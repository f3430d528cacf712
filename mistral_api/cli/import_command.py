"""``mistral-api import``: conversations from exports of this and of other programs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import click
from sqlalchemy import Engine

from mistral_api.api_keys.key_store import NAME_RULE
from mistral_api.cli.command_settings import command_settings
from mistral_api.cli.database import command_engine
from mistral_api.cli.download_display import DownloadDisplay
from mistral_api.conversations.importing.export_file import (
    FORMATS,
    ExportFile,
    SkippedConversation,
    UnreadableFile,
)
from mistral_api.conversations.importing.imported import ImportedConversation
from mistral_api.conversations.importing.importer import ConversationImporter, ImportedResult, batches
from mistral_api.conversations.importing.source_tree import ImportTarget
from mistral_api.security.access import LOCAL_OWNER
from mistral_api.settings import Settings
from mistral_api.wire.keys import NAME_PATTERN


class CannotImport(click.ClickException):
    """Nothing was imported: the command was called with what is no export, or where no text may be stored."""

    exit_code = 2


@dataclass(slots=True)
class _Summary:
    """What became of the conversations of all files."""

    dry_run: bool
    new: int = 0
    continued: int = 0
    unchanged: int = 0
    messages: int = 0
    problems: list[str] = field(default_factory=list)

    def count(self, result: ImportedResult) -> None:
        """Count one conversation, and show it where nothing is written."""
        self.messages += result.new_messages
        if result.was_stored and not result.new_messages:
            self.unchanged += 1
            return
        self.new += not result.was_stored
        self.continued += result.was_stored
        if self.dry_run:
            kind = "continued" if result.was_stored else "new"
            conversation = result.conversation
            click.echo(
                f"{kind}: {conversation.session_id}, {result.new_messages} messages: {conversation.title or '-'}"
            )

    def add_problem(self, sentence: str) -> None:
        """Show a conversation or the rest of a file that is not imported."""
        self.problems.append(sentence)
        click.echo(sentence, err=True)

    def sentence(self) -> str:
        """Return the figures as a sentence."""
        begin = "Nothing was written. To import" if self.dry_run else "Imported"
        return (
            f"{begin}: conversations {self.new} new, {self.continued} continued, {self.unchanged} there already; "
            f"messages {self.messages}; problems {len(self.problems)}."
        )


def _require_owner(_context: click.Context, _option: click.Parameter, owner: str) -> str:
    if not NAME_PATTERN.fullmatch(owner):
        raise click.BadParameter(f"expected {NAME_RULE}.")
    return owner


@click.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--format",
    "format_name",
    type=click.Choice(FORMATS),
    help="What the files are. Without it the content tells.",
)
@click.option(
    "--owner",
    default=LOCAL_OWNER,
    callback=_require_owner,
    help="Whose the conversations become, where the file does not say: the owner of a key.  [default: local]",
)
@click.option("--dry-run", is_flag=True, help="Say what would be imported, and write nothing.")
def import_conversations(files: tuple[Path, ...], format_name: str | None, owner: str, dry_run: bool) -> None:
    """Read conversations in: from 'mistral-api export', Open WebUI, LibreChat or ChatGPT.

    What is there already is not imported again: after an interruption, or with a newer export, the same command adds
    what is missing.
    """
    settings = _settings()
    exports = [_open(path, format_name) for path in files]
    target = ImportTarget(owner, settings.store_attachment_bytes)
    summary = _Summary(dry_run)
    try:
        with command_engine() as engine:
            for export in exports:
                _import_file(engine, export, target, summary)
    except KeyboardInterrupt:
        raise click.ClickException("Interrupted; the same command goes on where it was.") from None
    click.echo(summary.sentence())
    if summary.problems:
        raise click.ClickException(f"Not everything was imported: problems {len(summary.problems)}, see above.")


def _settings() -> Settings:
    settings = command_settings()
    if not settings.store_content:
        raise CannotImport("This server keeps no text (STORE_CONTENT=false), so nothing is imported.")
    return settings


def _open(path: Path, format_name: str | None) -> ExportFile:
    try:
        return ExportFile(path, format_name)
    except UnreadableFile as error:
        raise CannotImport(str(error)) from error
    except OSError as error:
        raise CannotImport(f"{path} cannot be read: {error.strerror}.") from error


def _import_file(engine: Engine, export: ExportFile, target: ImportTarget, summary: _Summary) -> None:
    importer = ConversationImporter(engine, dry_run=summary.dry_run)
    with ExitStack() as stack:
        update = stack.enter_context(DownloadDisplay().progress(export.path.name, export.size))
        for batch in batches(_conversations(export, target, summary, update)):
            for result in importer.store(batch):
                if result.reason is None:
                    summary.count(result)
                else:
                    summary.add_problem(
                        f"{export.path.name}, {result.conversation.session_id} {result.reason}; skipped."
                    )
        update(export.size)


def _conversations(
    export: ExportFile, target: ImportTarget, summary: _Summary, update: Callable[[int], None]
) -> Iterator[ImportedConversation]:
    """Yield the conversations of a file that can be read, and show the progress."""
    try:
        for read in export.conversations(target):
            update(export.received)
            if isinstance(read, SkippedConversation):
                summary.add_problem(f"{read.place} {read.reason}; skipped.")
            else:
                yield read
    except UnreadableFile as error:
        summary.add_problem(str(error))
    except OSError as error:
        summary.add_problem(f"{export.path.name} cannot be read further: {error.strerror}.")
