"""``mistral-api pull``: a model from the Hugging Face Hub, with a progress bar on a terminal and lines elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

import click
from tabulate import tabulate

from mistral_api.cli.download_display import DownloadDisplay
from mistral_api.downloads.errors import DownloadError
from mistral_api.model_files.known_models import DEFAULT_QUANT, KNOWN_MODELS, TABLE_HEADERS, ModelSource, parse_source
from mistral_api.model_files.memory_estimate import ESTIMATE_CONTEXT
from mistral_api.settings import read_dotenv
from mistral_api.system.project import project_folder

# huggingface_hub reads these as whole numbers while it is imported.
_TIMEOUTS = ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT")


def prepare_environment() -> None:
    """Prepare the variables that huggingface_hub reads while it is imported. Raises DownloadError for bad values.

    An empty variable counts as not set, as everywhere else.
    """
    for name in [name for name, value in os.environ.items() if name.startswith("HF_") and not value]:
        del os.environ[name]
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    for name in _TIMEOUTS:
        value = os.environ.get(name, "1")
        if not (value.isascii() and value.isdigit() and int(value) > 0):
            raise DownloadError(f"{name}: '{value}' is not allowed; give a whole number of seconds.")


def _print_list(context: click.Context, _option: click.Parameter, requested: bool) -> None:
    if not requested:
        return
    rows = [model.row() for model in KNOWN_MODELS]
    alignment = ("left", *["right"] * 5, "left")
    click.echo(tabulate(rows, TABLE_HEADERS, tablefmt="simple", disable_numparse=True, colalign=alignment))
    click.echo(
        f"\nFor {DEFAULT_QUANT} and a context of {ESTIMATE_CONTEXT} tokens: file and graphics memory for all layers "
        "in GiB, and GPU_LAYERS for three sizes of card. Estimates, rather too high than too low. All requests share "
        "the context."
    )
    context.exit()


@click.command()
@click.argument("model")
@click.option("--quant", metavar="NAME", help=f"Quantisation of a known model.  [default: {DEFAULT_QUANT}]")
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where to put it.  [default: models in the project's folder]",
)
@click.option("--revision", default="main", show_default=True, help="Branch, tag or commit of the repository.")
@click.option(
    "--projector/--no-projector",
    default=True,
    show_default=True,
    help="Also fetch the projector, with which a model sees images, where its repository has one.",
)
@click.option(
    "--list",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_list,
    help="Show the known models, and the memory each needs.",
)
def pull(model: str, quant: str | None, folder: Path | None, revision: str, projector: bool) -> None:
    """Fetch a model from the Hugging Face Hub: a known one, or OWNER/REPOSITORY:FILE.gguf.

    An interrupted download goes on where it was when the command is run again. HF_TOKEN opens gated repositories,
    HF_ENDPOINT names a mirror.
    """
    try:
        read_dotenv()  # it may have HF_TOKEN
        prepare_environment()
        source = parse_source(model, quant, revision)
        _pull(source, folder or project_folder() / "models", with_projector=projector)
    except DownloadError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        raise click.ClickException("Interrupted; the same command goes on where it was.") from None


def _pull(source: ModelSource, folder: Path, *, with_projector: bool) -> None:
    # Imported here, since huggingface_hub is slow to import, and the other commands do without.
    from mistral_api.model_files.hub import Hub  # noqa: PLC0415
    from mistral_api.model_files.pull import Puller, env_lines  # noqa: PLC0415

    hub = Hub()
    try:
        pulled = Puller(hub, folder, DownloadDisplay()).pull(source, with_projector=with_projector)
    finally:
        hub.close()
    click.echo(f"{pulled.path}\n\nTo serve it, put into .env:\n")
    click.echo("\n".join(env_lines(source, pulled)))
