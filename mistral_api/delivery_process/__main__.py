"""``python -m mistral_api.delivery_process``: ``bin/serve`` runs this, and ends it by closing its standard input."""

from __future__ import annotations

import gc

from mistral_api.system.process_end import end  # before all others
from mistral_api.system.quiet_interrupt import end_quietly_at_interrupt

if __name__ == "__main__":
    end_quietly_at_interrupt()
    gc.disable()  # until main(), as in serving/__main__.py

import sys

from mistral_api.delivery_process.run import DeliveryEnded, deliver
from mistral_api.errors import StartError
from mistral_api.settings import SettingError, load_settings
from mistral_api.system.console import escape_unprintable_output
from mistral_api.system.exit_codes import ExitCode
from mistral_api.system.logs import configure_server_log


def main() -> int:
    """Deliver until bin/serve ends, or asks for it; return an ExitCode."""
    gc.freeze()  # what has been imported
    gc.enable()
    escape_unprintable_output()
    try:
        settings = load_settings()
        configure_server_log(settings.log_options, "delivery")
        deliver(settings, is_child=True)
    except (SettingError, StartError) as error:
        print(error, file=sys.stderr)
        return ExitCode.CANNOT_START
    except DeliveryEnded as error:
        print(error, file=sys.stderr)
        return ExitCode.FAILED
    return ExitCode.OK


if __name__ == "__main__":
    end(main())
