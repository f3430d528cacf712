"""``mistral-api service``: the API and the supervisor as services of the system."""

from __future__ import annotations

import sys

import click

from mistral_api.registration.service import RegistrationError, exit_code

if sys.platform == "win32":
    from mistral_api.registration.windows import WindowsRegistration as Registration
else:
    from mistral_api.registration.systemd import SystemdRegistration as Registration

_scope = click.option(
    "--user/--system",
    "user",
    default=None,
    help="Of your own account, or of the whole system (Linux).  [default: --system as root, else --user]",
)


class _RegistrationGroup(click.Group):
    """A group whose RegistrationErrors become one sentence and exit code 1."""

    def invoke(self, context: click.Context) -> object:
        try:
            return super().invoke(context)
        except RegistrationError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_RegistrationGroup)
def service() -> None:
    """Register the API and the supervisor with systemd, or with Windows' Service Control Manager."""


@service.command()
@_scope
@click.option("--account", help="Who runs the units of the system (Linux).  [default: mistral-api, made if need be]")
@click.option("--print", "only_print", is_flag=True, help="Show what would be written, and write nothing.")
@click.option("--now", is_flag=True, help="Start the services too.")
def install(user: bool | None, account: str | None, only_print: bool, now: bool) -> None:
    """Write and enable two services, each restarted by itself; running it again brings them up to date."""
    registration = Registration(user=user, account=account)
    if only_print:
        for path, text in registration.texts().items():
            click.echo(f"# ---- {path}\n{text}")
        return
    for line in registration.install(now=now):
        click.echo(line)


@service.command()
@_scope
def uninstall(user: bool | None) -> None:
    """Stop the services and remove what install has written. Data are kept."""
    for line in Registration(user=user, account=None).uninstall():
        click.echo(line)


@service.command()
@_scope
@click.pass_context
def status(context: click.Context, user: bool | None) -> None:
    """Say how each service is.

    Exit codes: 0 all run, 3 one does not run, 4 one is not installed or nobody knows.
    """
    states = Registration(user=user, account=None).states()
    for each in states:
        click.echo(f"{each.name}: {each.state}{f' ({each.detail})' if each.detail else ''}")
    context.exit(exit_code(states))
