"""The datagrams of sd_notify(3), over real sockets."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("the protocol is systemd's", allow_module_level=True)

from mistral_api.system.service_manager import ServiceManager
from tests.support.notify_listener import NotifyListener, open_listener
from tests.support.processes import wait_for


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[NotifyListener]:
    with open_listener(tmp_path) as made:
        yield made


def test_each_notification_is_one_datagram(listener: NotifyListener) -> None:
    manager = ServiceManager(listener.address)
    manager.extend_timeout(1.5)
    manager.notify_ready()
    manager.notify_status("two\nlines")
    manager.notify_stopping()
    assert listener.received() == ["EXTEND_TIMEOUT_USEC=1500000", "READY=1", "STATUS=two lines", "STOPPING=1"]


def test_abstract_notify_socket_is_supported() -> None:
    abstract = NotifyListener(f"@mistral-api-test-{uuid.uuid4().hex}")
    ServiceManager(abstract.address).notify_ready()
    assert abstract.received() == ["READY=1"]
    abstract.close()


def test_watchdog_is_notified_every_half_period_at_most(listener: NotifyListener) -> None:
    seldom = ServiceManager(listener.address, watchdog_seconds=600)
    for _ in range(50):
        seldom.feed_watchdog()
    assert listener.received() == ["WATCHDOG=1"]
    manager = ServiceManager(listener.address, watchdog_seconds=0.2)
    manager.feed_watchdog()

    def fed_again() -> bool:
        manager.feed_watchdog()
        return len(listener.received()) == 3

    wait_for(fed_again, "the next WATCHDOG=1", 5)


def test_no_watchdog_notification_without_a_watchdog(listener: NotifyListener) -> None:
    ServiceManager(listener.address).feed_watchdog()
    assert listener.received() == []


def test_failed_watchdog_notification_is_sent_again_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    manager = ServiceManager(str(tmp_path / "notify"), watchdog_seconds=60)
    manager.feed_watchdog()
    manager.feed_watchdog()
    with open_listener(tmp_path) as listener:
        manager.feed_watchdog()
        assert listener.received() == ["WATCHDOG=1"]
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_notify_variables_are_removed_from_the_environment(listener: NotifyListener) -> None:
    environment = {"NOTIFY_SOCKET": listener.address, "WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}
    manager = ServiceManager.from_environment(environment)
    assert environment == {}
    manager.feed_watchdog()
    assert listener.received() == ["WATCHDOG=1"]


@pytest.mark.parametrize("variables", [{"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}])
def test_watchdog_of_another_process_is_ignored(listener: NotifyListener, variables: dict[str, str]) -> None:
    manager = ServiceManager.from_environment({"NOTIFY_SOCKET": listener.address} | variables)
    manager.feed_watchdog()
    manager.notify_ready()
    assert listener.received() == ["READY=1"]


def test_notifications_without_a_manager_do_nothing(caplog: pytest.LogCaptureFixture) -> None:
    manager = ServiceManager.from_environment({})
    manager.notify_ready()
    manager.feed_watchdog()
    manager.notify_stopping()
    assert not caplog.records
