"""Fetching a model from a hub that does what hubs and networks do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from dotenv import dotenv_values
from filelock import FileLock
from huggingface_hub import close_session, constants

from mistral_api.model_files import hub as transfer
from mistral_api.model_files import pull
from mistral_api.model_files.hub import Hub
from mistral_api.model_files.known_models import PullError, parse_source
from mistral_api.model_files.pull import PullResult, env_lines
from tests.support.model_hub import COMMIT, ModelHub, model_hub
from tests.support.model_pulls import CONTENT, HALF, REPO, Interrupted, left_in, pull_from, refusal_of


@pytest.fixture
def hub() -> Iterator[ModelHub]:
    """A hub with one model."""
    with model_hub(**{f"{REPO}/m.gguf": CONTENT}) as running:
        yield running


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No pauses, and no token or settings of whoever runs the tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(transfer, "PAUSES", (0.0,))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def test_a_model_is_fetched_checked_and_then_fetched_no_more(hub: ModelHub, tmp_path: Path) -> None:
    pulled, shown = pull_from(hub, tmp_path)
    assert (pulled.path, pulled.size) == (tmp_path / "m.gguf", len(CONTENT))
    assert pulled.path.read_bytes() == CONTENT
    assert (shown.counts[0], shown.counts[-1]) == (0, len(CONTENT))
    assert not left_in(tmp_path)
    again, shown = pull_from(hub, tmp_path)
    assert again == pulled
    assert any("there already and whole" in sentence for sentence in shown.sentences)
    assert len(hub.stored) == 1


def test_the_content_is_asked_of_the_commit_whose_checksum_was_given(hub: ModelHub, tmp_path: Path) -> None:
    pull_from(hub, tmp_path)
    assert [(each.method, each.path) for each in hub.asked] == [
        ("HEAD", f"/{REPO}/resolve/main/m.gguf"),
        ("GET", f"/{REPO}/resolve/{COMMIT}/m.gguf"),
    ]


def test_a_repository_that_has_moved_is_followed(
    hub: ModelHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.fault = "moved"
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    pulled, _ = pull_from(hub, tmp_path, "before/model-GGUF:m.gguf")
    assert pulled.path.read_bytes() == CONTENT
    assert [each.method for each in hub.asked] == ["HEAD", "HEAD", "GET", "GET"]
    assert {each.authorization for each in hub.asked} == {"Bearer hf_good"}


def test_a_damaged_file_of_that_name_is_replaced(hub: ModelHub, tmp_path: Path) -> None:
    for damaged in (CONTENT[:-1], CONTENT[:-1] + b"?"):
        (tmp_path / "m.gguf").write_bytes(damaged)
        pulled, shown = pull_from(hub, tmp_path)
        assert pulled.path.read_bytes() == CONTENT
        assert any("is replaced" in sentence for sentence in shown.sentences)


def test_a_connection_that_breaks_is_gone_on_with(hub: ModelHub, tmp_path: Path) -> None:
    hub.fault, hub.cuts = "cut", 2
    pulled, _ = pull_from(hub, tmp_path)
    assert pulled.path.read_bytes() == CONTENT
    assert hub.ranges() == [None, f"bytes={HALF}-", f"bytes={HALF + (len(CONTENT) - HALF + 1) // 2}-"]


@pytest.mark.parametrize("fault", ["errors", "short-length", "long-length"])
def test_a_storage_that_fails_once_is_asked_again(hub: ModelHub, tmp_path: Path, fault: str) -> None:
    hub.fault = fault
    pulled, _ = pull_from(hub, tmp_path)
    assert pulled.path.read_bytes() == CONTENT


def _interrupt(hub: ModelHub, folder: Path) -> None:
    """Leave half of the file there: the storage sends that, and then nothing any more."""
    hub.fault = "stall"
    with pytest.raises(KeyboardInterrupt):
        pull_from(hub, folder, shown=Interrupted())
    assert left_in(folder) == [CONTENT[:HALF]]
    hub.fault = ""


def test_a_storage_that_falls_silent_is_given_up_and_gone_on_with_later(
    hub: ModelHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.fault = "stall"
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 1.0)
    assert "did not answer in time" in refusal_of(hub, tmp_path)
    assert left_in(tmp_path) == [CONTENT[:HALF]]
    hub.fault = ""
    pulled, shown = pull_from(hub, tmp_path)
    assert hub.ranges()[-1] == f"bytes={HALF}-"
    assert pulled.path.read_bytes() == CONTENT
    assert any(sentence.startswith("Going on with m.gguf at") for sentence in shown.sentences)
    assert shown.counts[0] == HALF


def test_a_storage_that_keeps_failing_is_given_up(hub: ModelHub, tmp_path: Path) -> None:
    hub.fault, hub.cuts = "errors", 1000
    assert "answered with status 500" in refusal_of(hub, tmp_path)
    assert len(hub.stored) == 2


@pytest.mark.parametrize("fault", ["ignores-range", "other-range", "page"])
def test_a_storage_that_does_not_heed_ranges_does_no_harm(hub: ModelHub, tmp_path: Path, fault: str) -> None:
    _interrupt(hub, tmp_path)
    hub.fault, hub.cuts = fault, 0
    if fault == "ignores-range":
        assert pull_from(hub, tmp_path)[0].path.read_bytes() == CONTENT
        return
    assert "broke off" in refusal_of(hub, tmp_path)
    assert left_in(tmp_path) == [CONTENT[:HALF]]


def test_a_partial_file_that_is_too_long_begins_anew(hub: ModelHub, tmp_path: Path) -> None:
    _interrupt(hub, tmp_path)
    partial = next((tmp_path / pull.UNFINISHED_FOLDER).glob("*.part"))
    partial.write_bytes(CONTENT + b"more")
    assert pull_from(hub, tmp_path)[0].path.read_bytes() == CONTENT


def test_other_content_begins_anew_and_leaves_nothing_of_the_old(hub: ModelHub, tmp_path: Path) -> None:
    _interrupt(hub, tmp_path)
    hub.files[f"{REPO}/m.gguf"] = new = b"GGUF" + CONTENT[:3:-1]
    pulled, _ = pull_from(hub, tmp_path)
    assert pulled.path.read_bytes() == new
    assert not left_in(tmp_path)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("wrong-bytes", "m.gguf does not have the SHA-256 that 127.0.0.1:.* gives for it; it has been removed"),
        ("too-much", "sent more bytes of m.gguf than it announced"),
    ],
)
def test_what_was_not_announced_is_removed(hub: ModelHub, tmp_path: Path, fault: str, sentence: str) -> None:
    hub.fault = fault
    with pytest.raises(PullError, match=sentence):
        pull_from(hub, tmp_path)
    assert not any(left_in(tmp_path))
    hub.fault = ""
    assert pull_from(hub, tmp_path)[0].path.read_bytes() == CONTENT


def test_a_file_that_is_no_gguf_is_refused(hub: ModelHub, tmp_path: Path) -> None:
    hub.files[f"{REPO}/m.gguf"] = b"PK" + CONTENT
    assert "m.gguf is no GGUF file" in refusal_of(hub, tmp_path)
    assert not left_in(tmp_path)


def test_where_there_is_no_checksum_it_is_said(hub: ModelHub, tmp_path: Path) -> None:
    hub.fault = "no-checksum"
    pulled, shown = pull_from(hub, tmp_path)
    assert pulled.path.read_bytes() == CONTENT
    assert any("its size alone is checked" in sentence for sentence in shown.sentences)


def test_all_parts_of_a_split_model_are_fetched_the_first_last(hub: ModelHub, tmp_path: Path) -> None:
    parts = {f"m-0000{number}-of-00003.gguf": b"GGUF" + bytes([number]) * 5000 for number in (1, 2, 3)}
    hub.files.update({f"{REPO}/q/{name}": content for name, content in parts.items()})
    pulled, _ = pull_from(hub, tmp_path, f"{REPO}:q/m-00002-of-00003.gguf")
    assert pulled == PullResult(tmp_path / "m-00001-of-00003.gguf", 3 * 5004)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.gguf")} == parts
    assert [each.path.partition("-of-")[0][-1] for each in hub.stored] == ["3", "2", "1"]
    del hub.files[f"{REPO}/q/m-00003-of-00003.gguf"]
    with pytest.raises(PullError, match=r"has no file q/m-00003-of-00003\.gguf"):
        pull_from(hub, tmp_path / "other", f"{REPO}:q/m-00001-of-00003.gguf")


@pytest.mark.parametrize(
    ("fault", "given", "revision", "sentence"),
    [
        ("", f"{REPO}:n.gguf", "main", "has no file n.gguf in revision main. It has: m.gguf."),
        ("", f"{REPO}:n.gguf", "refs/pr/1", "has no file n.gguf in revision refs/pr/1. It has: m.gguf."),
        ("", f"{REPO}:m.gguf", "v9", "has no revision 'v9'"),
        ("", "nobody/nothing:m.gguf", "main", "has no repository nobody/nothing, or it is private"),
        ("gated", f"{REPO}:m.gguf", "main", f"{REPO} is gated: accept its terms"),
        ("unauthorized", f"{REPO}:m.gguf", "main", "set HF_TOKEN to a token that may read it"),
        ("too-many", f"{REPO}:m.gguf", "main", "takes no more requests from here for now"),
        ("no-hub", f"{REPO}:m.gguf", "main", "does not answer as a Hugging Face Hub does"),
        ("bad-listing", f"{REPO}:n.gguf", "main", "does not answer as a Hugging Face Hub does"),
        ("huge", f"{REPO}:m.gguf", "main", "are still to come, but the disk of"),
    ],
)
def test_what_cannot_be_had_is_said_in_a_sentence(
    hub: ModelHub, tmp_path: Path, fault: str, given: str, revision: str, sentence: str
) -> None:
    hub.fault = fault
    said = refusal_of(hub, tmp_path, given, revision)
    assert sentence in said
    assert "\n" not in said
    assert not hub.stored


def test_a_hub_that_never_answers_is_given_up(hub: ModelHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.fault = "silent"
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.2)
    assert "did not answer in time" in refusal_of(hub, tmp_path)


@pytest.mark.parametrize(
    "endpoint", ["huggingface.co", "ftp://me:secret@hub", "http://", "http://hub:port", "http://[hub", "http://hub:0"]
)
def test_an_address_that_is_none_is_refused(endpoint: str) -> None:
    with pytest.raises(PullError, match="HF_ENDPOINT is no address of a hub") as refused:
        Hub(endpoint)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("HTTPS_PROXY", "socks5://me:secret@proxy:1080", "The proxy in HTTPS_PROXY, HTTP_PROXY or ALL_PROXY cannot"),
        ("HTTPS_PROXY", "ftp://me:secret@proxy", "The proxy in HTTPS_PROXY"),
        ("ALL_PROXY", "http://me:secret@proxy:port", "The proxy in HTTPS_PROXY"),
        ("SSL_CERT_FILE", "/no/such.pem", "SSL_CERT_FILE or SSL_CERT_DIR cannot be used"),
    ],
)
def test_a_way_to_the_hub_that_cannot_be_gone_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, sentence: str
) -> None:
    close_session()
    monkeypatch.setenv(variable, value)
    with pytest.raises(PullError, match=sentence) as refused:
        Hub("https://hub.invalid")
    assert "secret" not in str(refused.value)


def test_a_token_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path))
    with pytest.raises(PullError, match=r"HF_TOKEN_PATH: the token in .* cannot be read: Is a directory"):
        Hub("https://hub.invalid")


def test_the_token_opens_what_is_gated_and_goes_to_the_hub_alone(
    hub: ModelHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.fault = "gated"
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    pull_from(hub, tmp_path)
    assert {each.authorization for each in hub.asked} == {"Bearer hf_good"}
    assert {each.authorization for each in hub.stored} == {None}


def test_two_pulls_into_one_folder_do_not_meet(hub: ModelHub, tmp_path: Path) -> None:
    unfinished = tmp_path / pull.UNFINISHED_FOLDER
    unfinished.mkdir()
    with FileLock(unfinished / "lock"):
        assert "Another pull into" in refusal_of(hub, tmp_path)


def test_a_folder_that_cannot_be_made_is_named(hub: ModelHub, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert refusal_of(hub, tmp_path / "file").startswith(f"{tmp_path / 'file'}")


def test_the_lines_for_env_are_read_back_as_they_are_meant(tmp_path: Path) -> None:
    folder = tmp_path / "it's a #1 model"
    folder.mkdir()
    pulled = PullResult(folder / "m.gguf", 4_372_812_000)
    env = tmp_path / ".env"
    env.write_text("\n".join(env_lines(parse_source("mistral-7b-instruct"), pulled)))
    assert dotenv_values(env) == {
        "MODEL_PATH": str(pulled.path),
        "MODEL_ALIAS": "mistral-7b-instruct",
        "CONTEXT_SIZE": "8192",
        "PARALLEL": "1",
        "GPU_LAYERS": "auto",
    }
    assert "19 on a card of 4 GB, 32 on a card of 6 GB, all on a card of 8 GB" in env.read_text()
    assert len(env_lines(parse_source(f"{REPO}:m.gguf"), pulled)) == 2
