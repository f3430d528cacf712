"""Errors of the hub, and the network, as sentences that tell the operator what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import httpx2
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from mistral_api.downloads.errors import DownloadError
from mistral_api.model_files.known_models import ModelSource, NoSuchFile


@contextlib.contextmanager
def explain_hub_errors(host: str, source: ModelSource) -> Iterator[None]:
    """Turn an error response of the hub, or its silence, into DownloadError."""
    try:
        yield
    except EntryNotFoundError as error:
        text = f"{source.repo} on {host} has no file {source.file} in revision {source.revision}."
        raise NoSuchFile(text) from error
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise DownloadError(describe_error(error, host, source)) from error


def describe_error(error: Exception, host: str, source: ModelSource) -> str:
    """Return one sentence for the operator. It quotes nothing of the error's own text that could hold a token."""
    match error:
        case HfHubHTTPError():
            return _describe_refusal(error, host, source)
        case HFValidationError():
            return f"'{source.repo}' cannot be the name of a repository."
        case OfflineModeIsEnabled():
            return "HF_HUB_OFFLINE is set: unset it to download."
        case httpx2.TimeoutException():
            return f"{host} did not answer in time; run the command again, or raise HF_HUB_DOWNLOAD_TIMEOUT (seconds)."
        case httpx2.ConnectError() | httpx2.ProxyError() | httpx2.InvalidURL():
            return f"{host} cannot be reached ({error}); is this machine online, and HF_ENDPOINT right?"
        case _:
            return f"The connection to {host} broke off ({type(error).__name__}); run the command again to go on."


def _describe_refusal(error: HfHubHTTPError, host: str, source: ModelSource) -> str:
    match error:
        case GatedRepoError():
            return (
                f"{source.repo} is gated: accept its terms on its page at {host}, "
                "and set HF_TOKEN to a token of yours that may read it."
            )
        case RevisionNotFoundError():
            return f"{source.repo} on {host} has no revision '{source.revision}'."
        case RepositoryNotFoundError():
            return f"{host} has no repository {source.repo}, or it is private: check the name, or set HF_TOKEN."
        case _:
            return _describe_status(error.response.status_code, host, source)


def _describe_status(status: int, host: str, source: ModelSource) -> str:
    if status in (401, 403):
        return f"{host} refuses access to {source.repo} ({status}): set HF_TOKEN to a token that may read it."
    if status == 404:
        return f"{source.repo} or its file {source.file} is not on {host}."
    if status == 429:
        return f"{host} takes no more requests from here for now (429); run the command again later."
    return f"{host} answered with status {status}; run the command again later."
