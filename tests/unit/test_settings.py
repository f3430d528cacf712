"""Settings are read from text and refused with one sentence, and never show a secret."""

import sys
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from mistral_api.cli.settings import _masked_url
from mistral_api.settings import SettingError, Settings, setting_fields, settings_from
from mistral_api.system.project import project_folder


def test_empty_environment_gives_the_default_settings() -> None:
    settings = settings_from({})
    assert (settings.api_host, settings.api_port, settings.api_threads) == ("127.0.0.1", 9000, 64)
    assert settings.database_url is None
    assert settings.data_dir == project_folder() / "var"


def test_empty_setting_counts_as_not_set() -> None:
    assert settings_from({"API_PORT": "  ", "DATABASE_URL": ""}) == settings_from({})


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2"])
def test_database_url_keeps_its_ssl_options(scheme: str) -> None:
    settings = settings_from({"DATABASE_URL": f"{scheme}://u:p@db.example.com:5432/m?sslmode=require"})
    assert settings.database_url == "postgresql+psycopg2://u:p@db.example.com:5432/m?sslmode=require"


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("API_PORT", "abc", "a whole number from 0 to 65535"),
        ("API_PORT", "70000", "a whole number from 0 to 65535"),
        ("API_THREADS", "0", "a whole number from 1 to 1024"),
        ("STORE_CONTENT", "perhaps", "true or false"),
        ("GPU_LAYERS", "some", "a whole number of layers, auto or all"),
        ("LOG_LEVEL", "LOUD", "one of DEBUG, INFO, WARNING, ERROR"),
        ("MODEL_SERVER_URL", "ftp://host", "an http:// or https:// URL"),
        ("MODEL_SERVER_URL", "http://host:99999", "an http:// or https:// URL"),
        ("MODEL_SERVER_URL", "http://host:port", "an http:// or https:// URL"),
        ("MODEL_SERVER_URL", "http://my host", "an http:// or https:// URL"),
        ("MODEL_SERVER_URL", f"http://{'a' * 64}.example", "an http:// or https:// URL"),
        ("MODEL_SERVER_HOST", "/run/engine.sock", "a host name, an IP address, or, except on Windows, unix"),
        ("MODEL_WAIT_SECONDS", "nan", "a number of seconds from 0 to 3600"),
        ("MODEL_ALIAS", "a,,b", "separated by commas"),
        ("API_HOST", "two words", "a host name or an IP address"),
        ("SESSION_HEADERS", "X-Chat-Id,,X-Task-Id", "names of headers"),
        ("SESSION_HEADERS", "X_Chat_Id", "letters, digits and -"),
        ("SESSION_HEADERS", "X-Chat-Id, Authorization", "none of which carries a key"),
        ("CORS_ORIGINS", "*", "origins such as https://chat.example.com"),
        ("CORS_ORIGINS", "null", "origins such as https://chat.example.com"),
        ("CORS_ORIGINS", "chat.example.com", "origins such as https://chat.example.com"),
        ("CORS_ORIGINS", "https://chat.example.com/page", "origins such as https://chat.example.com"),
        ("CORS_ORIGINS", "https://*.example.com", "origins such as https://chat.example.com"),
        ("ALLOWED_HOSTS", "https://api.example.com", "host names without a scheme or port"),
        ("ALLOWED_HOSTS", "api.example.com:9000", "host names without a scheme or port"),
        ("ALLOWED_HOSTS", ",", "host names without a scheme or port"),
        ("TRUSTED_PROXIES", "proxy.example.com", "IP addresses or networks such as 10.0.0.0/8"),
        ("TRUSTED_PROXIES", "10.0.0.0/33", "IP addresses or networks such as 10.0.0.0/8"),
    ],
)
def test_bad_setting_is_refused_with_name_value_and_allowed_values(name: str, value: str, allowed: str) -> None:
    with pytest.raises(SettingError) as refused:
        settings_from({name: value})
    message = str(refused.value)
    assert message.startswith(f"{name}: '{value}'")
    assert allowed in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "url",
    [
        "mysql://user:s3cret@host/db",
        "postgres://user:s3cret@host:port/db",
        "postgres://user:s3cret@host:/db",
        "postgres://user:s3cret@[::1/db",
    ],
)
def test_bad_database_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(SettingError, match="DATABASE_URL") as refused:
        settings_from({"DATABASE_URL": url})
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["http://Ann:s3cret@host:99999", "http://Ann:s3/cret@host", "s3cret@host", "https://host/?key=s3cret"]
)
def test_bad_model_server_url_is_refused_without_what_may_be_a_key(url: str) -> None:
    with pytest.raises(SettingError, match="MODEL_SERVER_URL: its value is not allowed; give an http://") as refused:
        settings_from({"MODEL_SERVER_URL": url})
    assert "s3" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://s3cret@host/v1", "https://***@host/v1"),
        ("https://Ann:s3cret@host:8000", "https://***@host:8000"),
        ("redis://s3cret@host:6379/0", "redis://***@host:6379/0"),
        ("redis://:s3cret@host", "redis://***@host"),
        ("http://host:8081", "http://host:8081"),
    ],
)
def test_url_is_shown_without_its_user_and_password(url: str, shown: str) -> None:
    assert _masked_url(url) == shown


@pytest.mark.parametrize(
    "address",
    [
        "host/db",
        "host",
        "user@host:5432/db",
        "/db?host=/run",
        "user:p@/db",
    ],
)
def test_database_url_that_sqlalchemy_reads_is_allowed(address: str) -> None:
    url = settings_from({"DATABASE_URL": f"postgres://{address}"}).database_url
    assert url is not None
    assert make_url(url) == make_url(f"postgresql+psycopg2://{address}")


def test_settings_repr_hides_the_database_password() -> None:
    assert "s3cret" not in repr(Settings(database_url="postgresql+psycopg2://user:s3cret@host/db"))


def test_model_server_url_may_end_in_v1() -> None:
    settings = settings_from({"MODEL_SERVER_URL": "http://gpu.example.com:8000/v1/"})
    assert settings.model_server_base_url == "http://gpu.example.com:8000"
    assert not settings.supervised


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8099"),
        ("::1", "http://[::1]:8099"),
        ("gpu.example.com", "http://gpu.example.com:8099"),
        # A server that listens on all addresses is reached on loopback: Windows cannot connect to 0.0.0.0.
        ("*", "http://127.0.0.1:8099"),
        ("0.0.0.0", "http://127.0.0.1:8099"),
        ("::", "http://[::1]:8099"),
    ],
)
def test_model_server_base_url_follows_host_and_port(host: str, url: str) -> None:
    assert settings_from({"MODEL_SERVER_HOST": host, "MODEL_SERVER_PORT": "8099"}).model_server_base_url == url


def test_origins_are_compared_as_browsers_send_them() -> None:
    text = "https://Chat.Example.com/, http://localhost:3000,https://a.example:443, http://[::1]:80, tauri://localhost"
    assert settings_from({"CORS_ORIGINS": text}).cors_origins == (
        "https://chat.example.com", "http://localhost:3000", "https://a.example", "http://[::1]", "tauri://localhost",
    )  # fmt: skip


def test_proxies_are_addresses_and_networks() -> None:
    networks = settings_from({"TRUSTED_PROXIES": "127.0.0.1, 10.1.2.3/8,2001:db8::/32"}).trusted_proxies
    assert [str(network) for network in networks or ()] == ["127.0.0.1/32", "10.0.0.0/8", "2001:db8::/32"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such sockets")
def test_unix_stands_for_a_socket_of_each_server_in_the_data_dir(tmp_path: Path) -> None:
    settings = settings_from({"MODEL_SERVER_HOST": "unix", "EMBEDDING_SERVER_HOST": "Unix", "DATA_DIR": str(tmp_path)})
    assert settings.model_server_socket == settings.model_server_host == f"{tmp_path}/run/model-server.sock"
    assert settings.embedding_server_host == f"{tmp_path}/run/embedding-server.sock"
    for folder in (tmp_path / ("x" * 90), tmp_path / "a,b"):
        with pytest.raises(SettingError, match=r"^MODEL_SERVER_HOST: the path of the socket"):
            settings_from({"MODEL_SERVER_HOST": "unix", "DATA_DIR": str(folder)})


@pytest.mark.parametrize("key", ["two words", "a,b", "schlüssel"])
def test_model_server_key_that_no_header_can_carry_is_refused_and_not_quoted(key: str) -> None:
    with pytest.raises(SettingError) as refused:
        settings_from({"MODEL_SERVER_API_KEY": key})
    assert str(refused.value).startswith("MODEL_SERVER_API_KEY: its value is not allowed")
    assert key not in str(refused.value)


def test_every_setting_has_a_meaning_and_a_valid_default() -> None:
    for name, declaration in setting_fields():
        assert declaration.metadata["meaning"], name
        if declaration.default is not None and not isinstance(declaration.default, bool):
            declaration.metadata["kind"].read(str(declaration.default))


def test_session_history_requires_store_content() -> None:
    with pytest.raises(SettingError, match=r"SESSION_HISTORY: .*STORE_CONTENT"):
        settings_from({"SESSION_HISTORY": "true", "STORE_CONTENT": "false"})


def test_setting_words_are_case_insensitive() -> None:
    settings = settings_from({"NORMALIZE_ROLES": "OFF", "LOG_LEVEL": "debug"})
    assert (settings.normalize_roles, settings.log_level) == ("off", "DEBUG")


def test_session_headers_are_a_list_of_names() -> None:
    assert settings_from({"SESSION_HEADERS": "X-Chat-Id, X-Task-Id"}).session_headers == ("X-Chat-Id", "X-Task-Id")
