"""``mistral-api engine``: which build of the bundled engine computes, and on what; and getting another."""

from __future__ import annotations

import os
import signal

import click
from tabulate import tabulate

from mistral_api.cli.command_settings import command_settings
from mistral_api.cli.download_display import DownloadDisplay
from mistral_api.cli.engine_facts import computes_on, engine_facts
from mistral_api.cli.errors import CannotGoOn
from mistral_api.control.status import read_status_file
from mistral_api.downloads.errors import DownloadError
from mistral_api.engine_builds.build_store import CPU, Build, BuildStore, packaged_version
from mistral_api.engine_builds.installation import Installer, NotInstalled
from mistral_api.engine_builds.machine import read_machine
from mistral_api.engine_builds.variants import PACKAGE, VARIANTS, Kind
from mistral_api.engine_builds.wheel_index import WheelIndex
from mistral_api.settings import Settings
from mistral_api.supervisor.launcher import die_with_parent
from mistral_api.system.command_names import installed_command
from mistral_api.system.processes import is_alive, stop_signals


@click.group()
def engine() -> None:
    """See which engine computes on what, and install the bundled one for a graphics card.

    The makers of the bundled engine, xllamacpp, build it for the processor, for NVIDIA's cards (CUDA) and for others
    (Vulkan). The processor's is always there.
    """


@engine.command()
@click.argument("kind", type=click.Choice([kind.value for kind in Kind]), default=Kind.AUTO.value)
@click.option("--at-start", is_flag=True, hidden=True, help="For the supervisor, with which this command ends (Linux).")
def install(kind: str, *, at_start: bool) -> None:
    """Have the bundled engine compute on KIND: auto (a card where there is one), cuda, vulkan or cpu.

    It is fetched from ENGINE_INDEX_URL, checked by its SHA-256, tried, and used from the engine's next start on. An
    interrupted download goes on where it was.
    """
    settings = command_settings()
    _stop_in_order(with_parent=at_start)
    running = _runs(settings)
    index = WheelIndex(settings.engine_index_url)
    installer = Installer(BuildStore(settings.data_dir), index, DownloadDisplay(), in_use=running)
    try:
        done = installer.install(Kind(kind), read_machine())
    except (NotInstalled, DownloadError) as error:
        raise CannotGoOn(str(error)) from error
    except KeyboardInterrupt:
        raise click.ClickException("Interrupted; the same command goes on where it was.") from None
    if at_start and not done.devices and kind == Kind.AUTO:
        return  # there is no card, as on most machines
    when = " once the server is started again" if running else " from the engine's next start on"
    click.echo(f"{_named(done.build)} computes on {computes_on(done.devices)}{'' if at_start else when}.")


def _stop_in_order(*, with_parent: bool) -> None:
    """Have every request to stop (SIGTERM, Ctrl-Break) end this command as Ctrl-C does, which leaves nothing behind."""
    for each in stop_signals():
        if each != signal.SIGINT:
            signal.signal(each, lambda _number, _frame: signal.raise_signal(signal.SIGINT))
    if with_parent:
        die_with_parent(os.getppid(), signal.SIGTERM)


def _runs(settings: Settings) -> bool:
    """Whether a supervisor runs, whose engine may use the build that is installed."""
    status = read_status_file(settings.data_dir)
    return status is not None and is_alive(status.supervisor_process)


@engine.command("list")
def list_builds() -> None:
    """Show the builds that there are, and which of them this machine can run."""
    settings = command_settings()
    store, machine = BuildStore(settings.data_dir), read_machine()
    chosen = store.chosen()
    there = {build.variant: build.version for build in store.installed()} | {CPU: packaged_version()}
    rows = [[CPU, there[CPU], "yes", _mark(CPU, chosen)]]
    for variant in VARIANTS:
        obstacle = variant.obstacle(machine)
        rows.append([variant.name, there.get(variant.name, ""), obstacle or "yes", _mark(variant.name, chosen)])
    click.echo(tabulate(rows, ["build", "installed", "runs here", ""], tablefmt="simple", disable_numparse=True))
    for name, version in there.items():
        if version != packaged_version():
            click.echo(f"\n{name} {version} is not of the version {packaged_version()}: {_install_command(store)}")


def _mark(variant: str, chosen: Build) -> str:
    return "in use" if variant == chosen.variant else ""


@engine.command()
def show() -> None:
    """Show the engine that the server starts: its version, where it comes from, and what it computes on."""
    settings = command_settings()
    for name, value in engine_facts(settings):
        click.echo(f"{name:<8} {value}")


def _named(build: Build) -> str:
    return f"{PACKAGE} {build.version} ({build.variant})"


def _install_command(store: BuildStore) -> str:
    return installed_command(f"mistral-api engine install {store.choice().asked}")
