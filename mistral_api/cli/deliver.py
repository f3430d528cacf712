"""``mistral-api deliver``: delivery in a process of its own, beside a web server that starts none."""

from __future__ import annotations

import logging

import click

from mistral_api.cli.errors import CannotGoOn
from mistral_api.delivery_process.run import DeliveryEnded
from mistral_api.delivery_process.run import deliver as deliver_until_stopped
from mistral_api.errors import StartError
from mistral_api.settings import load_settings, warn_of_misspellings
from mistral_api.system.logs import configure_server_log

log = logging.getLogger(__name__)


@click.command()
def deliver() -> None:
    """Deliver what API processes on this DATA_DIR have journaled to PostgreSQL, until it is stopped.

    bin/serve runs such a process by itself. Under another web server, such as waitress-serve, the API delivers in its
    own process unless this runs beside it. It waits for the API to bring the schema of the database to this version.
    """
    settings = load_settings()
    configure_server_log(settings.log_options, "delivery")
    warn_of_misspellings(log.warning)
    try:
        deliver_until_stopped(settings, is_child=False)
    except StartError as error:
        raise CannotGoOn(str(error)) from error
    except DeliveryEnded as error:
        raise click.ClickException(str(error)) from error
