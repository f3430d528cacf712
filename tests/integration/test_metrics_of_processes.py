"""``/metrics`` of several API processes on one DATA_DIR, while PostgreSQL is away."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import psutil
import pytest
import requests

from tests.support.metric_samples import scrape, value
from tests.support.misbehaving_server import misbehaving_server
from tests.support.processes import clean_environment, free_port, is_live, temporary_data_dir, wait_for

KEY = "the-secret-of-the-operator"
AUTHORIZED = {"Authorization": f"Bearer {KEY}"}
CHAT = "/v1/chat/completions"


@dataclass
class ApiProcess:
    """One API process, and the pid of the first one that had its port."""

    pid: int
    url: str

    def chat(self, count: int) -> None:
        """Ask for so many answers."""
        body = {"model": "fine", "messages": [{"role": "user", "content": "Hello"}]}
        for _ in range(count):
            assert requests.post(self.url + CHAT, json=body, headers=AUTHORIZED, timeout=30).status_code == 200

    def answered(self) -> float | None:
        """Return how many chats have been answered, by this process's metrics."""
        return value(scrape(self.url, **AUTHORIZED), "requests_total", route=CHAT, method="POST", status="200")


@pytest.fixture(scope="module")
def processes() -> Iterator[list[ApiProcess]]:
    """Two forked processes of one server on one DATA_DIR, with a key, and a database that nobody serves."""
    ports = [free_port(), free_port()]
    with misbehaving_server() as engine, temporary_data_dir() as data_dir:
        data_dir.mkdir(mode=0o711)
        environment = clean_environment(
            DATA_DIR=str(data_dir), MODEL_SERVER_URL=engine, ADMIN_API_KEY=KEY,
            DATABASE_URL="postgresql://nobody@127.0.0.1:9/none",
        )  # fmt: skip
        command = [sys.executable, "-m", "tests.support.forking_api", *map(str, ports)]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
        assert process.stdout is not None
        try:
            started = dict(line.split() for line in (process.stdout.readline().decode() for _ in ports))
            made = [ApiProcess(int(started[str(port)]), f"http://127.0.0.1:{port}") for port in ports]
            for each in made:
                wait_for(partial(is_live, each.url), "the API")
            yield made
        finally:
            process.terminate()
            process.wait(timeout=10)
            process.stdout.close()


def _shows(api: ApiProcess, count: int) -> bool:
    return api.answered() == count


def test_each_process_shows_the_requests_of_all(processes: list[ApiProcess]) -> None:
    one, other = processes
    one.chat(3)
    other.chat(2)
    for each in processes:
        wait_for(partial(_shows, each, 5), "the sum of both")
    samples = scrape(one.url, **AUTHORIZED)
    assert value(samples, "processes") == 2
    assert value(samples, "completion_tokens_total", model="fine") == 5


def test_state_is_shown_while_the_database_is_away(processes: list[ApiProcess]) -> None:
    processes[0].chat(1)
    samples = scrape(processes[0].url, **AUTHORIZED)
    assert (value(samples, "journal_exchanges") or 0) >= 1
    assert (value(samples, "journal_oldest_age_seconds") or 0) > 0
    assert value(samples, "journal_writable") == 1
    assert value(samples, "delivery_exchanges_total") == 0
    assert value(samples, "database_pool_checked_out", connections="readers") == 0


def test_scrape_is_quick_and_asks_the_database_nothing(processes: list[ApiProcess]) -> None:
    def seconds() -> float:
        began = time.monotonic()
        scrape(processes[0].url, **AUTHORIZED)
        return time.monotonic() - began

    # A tenth of that on a machine with nothing else to do, and seconds if it waited for the database.
    assert min(seconds() for _ in range(10)) < 0.5


def test_metrics_need_the_key_and_its_scope(processes: list[ApiProcess]) -> None:
    url = f"{processes[0].url}/metrics"
    assert requests.get(url, timeout=10).status_code == 401
    assert requests.get(url, headers={"Authorization": "Bearer wrong"}, timeout=10).status_code == 401
    refusals = scrape(processes[0].url, **AUTHORIZED)
    assert (value(refusals, "request_errors_total", code="invalid_api_key") or 0) >= 2


def test_format_follows_the_accept_header(processes: list[ApiProcess]) -> None:
    def content_type(accept: str) -> tuple[str, bool]:
        headers = AUTHORIZED | {"Accept": accept}
        answer = requests.get(f"{processes[0].url}/metrics", headers=headers, timeout=10)
        return answer.headers["Content-Type"], answer.text.endswith("# EOF\n")

    assert content_type("*/*") == ("text/plain; version=0.0.4; charset=utf-8", False)
    openmetrics, ended = content_type("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5")
    assert openmetrics == "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores"
    assert ended


def test_model_of_a_client_is_no_label(processes: list[ApiProcess]) -> None:
    body = {"model": "invented-by-a-client", "messages": [{"role": "user", "content": "Hello"}]}
    assert requests.post(processes[0].url + CHAT, json=body, headers=AUTHORIZED, timeout=30).status_code == 404
    requests.request("BREW", processes[0].url + "/coffee/invented", headers=AUTHORIZED, timeout=30)
    text = requests.get(f"{processes[0].url}/metrics", headers=AUTHORIZED, timeout=10).text
    assert "invented" not in text
    assert "BREW" not in text


def test_killed_process_leaves_its_counts(processes: list[ApiProcess]) -> None:
    """The forking server replaces it at once; sums never fall, and the new process sees them too."""
    one, other = processes
    before = one.answered() or 0
    other.chat(2)
    wait_for(lambda: one.answered() == before + 2, "the sum of both")
    psutil.Process(other.pid).kill()
    wait_for(lambda: not psutil.pid_exists(other.pid), "the end of the process")
    assert one.answered() == before + 2
    wait_for(lambda: is_live(other.url), "the next process")
    other.chat(1)
    wait_for(lambda: one.answered() == before + 3 and other.answered() == before + 3, "the sums of all three")
