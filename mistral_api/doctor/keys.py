"""The check of who may call: API keys in force, those that end soon, and a server open to the network."""

from __future__ import annotations

import time
from collections.abc import Iterator

from mistral_api.api_keys.key_mirror import read_any_records
from mistral_api.doctor.finding import Finding, ok, warning
from mistral_api.security.api_key import ApiKey
from mistral_api.settings import Settings
from mistral_api.system.addresses import is_loopback
from mistral_api.system.command_names import installed_command

SOON_SECONDS = 7 * 86_400.0


def check_keys(settings: Settings) -> Iterator[Finding]:
    """Say how many keys are in force, as the server on this DATA_DIR knew them last."""
    now = time.time()
    keys = [record.key for record in read_any_records(settings.data_dir) if record.revoked_at is None]
    in_force = [key for key in keys if key.expires_at is None or key.expires_at > now]
    if not in_force and settings.admin_api_key is None:
        yield _without_keys(settings)
        return
    admin = ", and ADMIN_API_KEY" if settings.admin_api_key else ""
    yield ok("keys", f"{len(in_force)} in force{admin}")
    for key in in_force:
        if key.expires_at is not None and key.expires_at - now < SOON_SECONDS:
            yield _ends_soon(key, key.expires_at - now)


def _without_keys(settings: Settings) -> Finding:
    if is_loopback(settings.api_host):
        return ok("keys", "none: whoever is on this machine may do everything, nobody else anything")
    if settings.allow_anonymous:
        return warning(
            "keys",
            f"none, and ALLOW_ANONYMOUS serves everybody who reaches {settings.api_host}",
            installed_command("mistral-api keys create NAME"),
        )
    return ok("keys", f"none yet: the next start makes the first one, since API_HOST is {settings.api_host}")


def _ends_soon(key: ApiKey, seconds: float) -> Finding:
    text = f"'{key.name}' ends in {seconds / 3600:.0f} hours"
    return warning(
        "keys", text, f"{installed_command('mistral-api keys create NAME --expires 90d')}, and give that to its users"
    )
