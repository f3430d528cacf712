"""``mistral-api doctor``: what is right and what is not, with the command that mends it."""

from __future__ import annotations

import dataclasses
import json
import time

import click

from mistral_api.cli.errors import CannotGoOn
from mistral_api.doctor.answer import ask_the_server
from mistral_api.doctor.examination import examine
from mistral_api.doctor.finding import Finding, Level, worst_level
from mistral_api.doctor.installation import check_settings
from mistral_api.settings import SettingError, load_settings_with_sources
from mistral_api.system.exit_codes import ExitCode
from mistral_api.version import VERSION

_COLOURS = {Level.OK: "green", Level.WARNING: "yellow", Level.FAILURE: "red"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines.")
@click.option("--full", is_flag=True, help="Also ask the running server something; a key comes from OPENAI_API_KEY.")
@click.pass_context
def doctor(context: click.Context, as_json: bool, full: bool) -> None:
    """Check everything that the server needs, within ten seconds, and change nothing.

    Exit codes: 0 without a failure, 1 with one.
    """
    try:
        loaded = load_settings_with_sources()
    except SettingError as error:
        raise CannotGoOn(str(error)) from error
    began = time.monotonic()
    findings = [*check_settings(loaded), *examine(loaded.settings)]
    if full:
        findings += ask_the_server(loaded.settings)
    worst, seconds = worst_level(findings), time.monotonic() - began
    click.echo(_to_json(findings, worst, seconds) if as_json else _to_lines(findings, worst, seconds))
    context.exit(ExitCode.FAILED if worst is Level.FAILURE else ExitCode.OK)


def _to_json(findings: list[Finding], worst: Level, seconds: float) -> str:
    entries = [dataclasses.asdict(finding) for finding in findings]
    return json.dumps(
        {"status": worst, "version": VERSION, "seconds": round(seconds, 2), "findings": entries}, indent=1
    )


def _to_lines(findings: list[Finding], worst: Level, seconds: float) -> str:
    lines = [line for finding in findings for line in _lines(finding)]
    counts = ", ".join(f"{sum(finding.level is level for finding in findings)} {level}" for level in Level)
    verdict = "All is well" if worst is Level.OK else "See above"
    return "\n".join([*lines, f"{verdict}: {counts}, in {seconds:.1f} s."])


def _lines(finding: Finding) -> list[str]:
    level = click.style(f"{finding.level:8}", fg=_COLOURS[finding.level])
    line = f"{level} {finding.subject:16} {finding.text}"
    return [line] if finding.mend is None else [line, f"{'':25} -> {finding.mend}"]
