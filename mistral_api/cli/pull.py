"""``mistral-api pull``."""

from __future__ import annotations

from pathlib import Path

import click
from tabulate import tabulate

from mistral_api.cli.progress import DownloadDisplay
from mistral_api.models.environment import prepare_environment
from mistral_api.models.errors import PullError
from mistral_api.models.known import DEFAULT_QUANT, HEADERS, KNOWN
from mistral_api.models.memory import CONTEXT
from mistral_api.models.sources import source_of
from mistral_api.settings import SettingError, read_dotenv


def _print_list(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    rows = [model.row() for model in KNOWN]
    alignment = ("left", *["right"] * 5, "left")
    click.echo(tabulate(rows, HEADERS, tablefmt="simple", disable_numparse=True, colalign=alignment))
    click.echo(
        f"\nFor {DEFAULT_QUANT} and a context of {CONTEXT} tokens: file and graphics memory for all layers in GiB, "
        "and GPU_LAYERS for three sizes of card. Estimates, rather too high than too low. PARALLEL requests share "
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
    source = source_of(model, quant, revision)
    # Here and not above: huggingface_hub is slow to import, and the other commands do without.
    from mistral_api.models.advice import env_lines  # noqa: PLC0415
    from mistral_api.models.hub import Hub  # noqa: PLC0415
    from mistral_api.models.pulling import Puller  # noqa: PLC0415

    hub = Hub()
    try:
        pulled = Puller(hub, folder, DownloadDisplay()).pull(source)
    finally:
        hub.close()
    click.echo(f"{pulled.path}\n\nTo serve it, put into .env:\n")
    click.echo("\n".join(env_lines(source, pulled)))
