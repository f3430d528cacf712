"""Pull, with its progress bar.

How far something long is: a bar on a terminal, a line now and then elsewhere.

What ``huggingface_hub`` reads from the environment while it is imported, looked at before that.

``mistral-api pull``.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from tabulate import tabulate

from mistral_api.model_files.known_models import DEFAULT_QUANT, KNOWN_MODELS, TABLE_HEADERS, PullError, parse_source
from mistral_api.model_files.memory_estimate import ESTIMATE_CONTEXT, format_size
from mistral_api.settings import SettingError, read_dotenv

_STEPS = 10


class DownloadDisplay:
    """Shows a download on the standard error."""

    def show(self, sentence: str) -> None:
        """One line."""
        click.echo(sentence, err=True)

    @contextlib.contextmanager
    def progress(self, name: str, size: int) -> Iterator[Callable[[int], None]]:
        """For one file; what it gives takes the number of bytes that are there."""
        label = f"{name} ({format_size(size)})"
        if not sys.stderr.isatty():
            yield _lines(label, size)
            return
        with click.progressbar(
            length=size, label=label, file=sys.stderr, update_min_steps=max(1, size // 1000), show_percent=True
        ) as bar:
            shown = 0

            def received(have: int) -> None:
                nonlocal shown
                bar.update(have - shown)
                shown = have

            yield received


def _lines(label: str, size: int) -> Callable[[int], None]:
    """A line for every tenth."""
    last = -1

    def received(have: int) -> None:
        nonlocal last
        step = have * _STEPS // size if size else _STEPS
        if step != last:
            last = step
            click.echo(f"{label}: {step * 100 // _STEPS} %", err=True)

    return received


_SECONDS = ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT")


def prepare_environment() -> None:
    """Take empty variables for unset ones, as everywhere else. Raises PullError for what cannot be imported with."""
    for name in [name for name, value in os.environ.items() if name.startswith("HF_") and not value]:
        del os.environ[name]
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    for name in _SECONDS:
        value = os.environ.get(name, "1")
        if not (value.isascii() and value.isdigit() and int(value) > 0):
            raise PullError(f"{name}: '{value}' is not allowed; give a whole number of seconds.")


def _print_list(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    rows = [model.row() for model in KNOWN_MODELS]
    alignment = ("left", *["right"] * 5, "left")
    click.echo(tabulate(rows, TABLE_HEADERS, tablefmt="simple", disable_numparse=True, colalign=alignment))
    click.echo(
        f"\nFor {DEFAULT_QUANT} and a context of {ESTIMATE_CONTEXT} tokens: file and graphics memory for all layers "
        "in GiB, and GPU_LAYERS for three sizes of card. Estimates, rather too high than too low. PARALLEL requests "
        "share the context."
    )
    context.exit()


@click.command()
@click.argument("model")
@click.option("--quant", metavar="NAME", help=f"Quantisation of a known model.  [default: {DEFAULT_QUANT}]")
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default="models",
    show_default=True,
    help="Where to put it.",
)
@click.option("--revision", default="main", show_default=True, help="Branch, tag or commit of the repository.")
@click.option(
    "--list",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_list,
    help="Show the known models, and the memory each needs.",
)
def pull(model: str, quant: str | None, folder: Path, revision: str) -> None:
    """Fetch a model from the Hugging Face Hub: a known one, or OWNER/REPOSITORY:FILE.gguf.

    An interrupted download goes on where it was when the command is run again. HF_TOKEN opens gated repositories,
    HF_ENDPOINT names a mirror.
    """
    try:
        read_dotenv()  # HF_TOKEN may stand there
        prepare_environment()
        _pull(model, quant, folder, revision)
    except (PullError, SettingError) as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        raise click.ClickException("Interrupted; the same command goes on where it was.") from None


def _pull(model: str, quant: str | None, folder: Path, revision: str) -> None:
    source = parse_source(model, quant, revision)
    # Here and not above: huggingface_hub is slow to import, and the other commands do without.
    from mistral_api.model_files.hub import Hub  # noqa: PLC0415
    from mistral_api.model_files.pull import Puller, env_lines  # noqa: PLC0415

    hub = Hub()
    try:
        pulled = Puller(hub, folder, DownloadDisplay()).pull(source)
    finally:
        hub.close()
    click.echo(f"{pulled.path}\n\nTo serve it, put into .env:\n")
    click.echo("\n".join(env_lines(source, pulled)))
