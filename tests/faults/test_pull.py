"""Download a model from a hub that fails as hubs and networks do."""

from __future__ import annotations

from pathlib import Path

import pytest
from dotenv import dotenv_values
from filelock import FileLock
from huggingface_hub import close_session, constants

from mistral_api.downloads import continued_download, download_folder
from mistral_api.downloads.errors import DownloadError
from mistral_api.model_files.hub import Hub
from mistral_api.model_files.known_models import parse_source
from mistral_api.model_files.pull import PullResult, env_lines
from tests.support.gguf_files import gguf_bytes, random_model
from tests.support.model_hub import COMMIT, ModelHub
from tests.support.model_pulls import CONTENT, HALF, REPO, InterruptingDisplay, partial_files, pull_error, pull_from


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch, no_hub_settings: None) -> None:
    """Remove the pauses between retries."""
    monkeypatch.setattr(continued_download, "PAUSES", (0.0,))


def test_model_is_downloaded_and_verified_once(hub: ModelHub, tmp_path: Path) -> None:
    pulled, shown = pull_from(hub, tmp_path)
    assert (pulled.path, pulled.size) == (tmp_path / "m.gguf", len(CONTENT))
    assert pulled.path.read_bytes() == CONTENT
    assert (shown.counts[0], shown.counts[-1]) == (0, len(CONTENT))
    assert not partial_files(tmp_path)
    again, shown = pull_from(hub, tmp_path)
    assert again == pulled
    assert any("there already and whole" in sentence for sentence in shown.sentences)
    assert len(hub.storage_requests) == 1


def test_content_is_downloaded_from_the_commit_whose_checksum_was_read(hub: ModelHub, tmp_path: Path) -> None:
    pull_from(hub, tmp_path)
    assert [(each.method, each.path) for each in hub.hub_requests] == [
        ("HEAD", f"/{REPO}/resolve/main/m.gguf"),
        ("GET", f"/{REPO}/resolve/{COMMIT}/m.gguf"),
    ]


def test_moved_repository_is_followed_with_the_token(
    hub: ModelHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.fault = "moved"
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    pulled, _ = pull_from(hub, tmp_path, "before/model-GGUF:m.gguf")
    assert pulled.path.read_bytes() == CONTENT
    assert [each.method for each in hub.hub_requests] == ["HEAD", "HEAD", "GET", "GET"]
    assert {each.authorization for each in hub.hub_requests} == {"Bearer hf_good"}


def test_damaged_model_file_of_the_same_name_is_replaced(hub: ModelHub, tmp_path: Path) -> None:
    for damaged in (CONTENT[:-1], CONTENT[:-1] + b"?"):
        (tmp_path / "m.gguf").write_bytes(damaged)
        pulled, shown = pull_from(hub, tmp_path)
        assert pulled.path.read_bytes() == CONTENT
        assert any("is replaced" in sentence for sentence in shown.sentences)


def test_broken_download_resumes_where_the_connection_broke(hub: ModelHub, tmp_path: Path) -> None:
    hub.fault, hub.cuts = "cut", 2
    pulled, _ = pull_from(hub, tmp_path)
    assert pulled.path.read_bytes() == CONTENT
    assert hub.ranges() == [None, f"bytes={HALF}-", f"bytes={HALF + (len(CONTENT) - HALF + 1) // 2}-"]


@pytest.mark.parametrize("fault", ["errors", "short-length", "long-length"])
def test_download_is_retried_after_a_storage_error(hub: ModelHub, tmp_path: Path, fault: str) -> None:
    hub.fault = fault
    pulled, _ = pull_from(hub, tmp_path)
    assert pulled.path.read_bytes() == CONTENT


def _interrupt_pull(hub: ModelHub, folder: Path) -> None:
    """Interrupt a pull after half of the file: the storage sends that half and then stalls."""
    hub.fault = "stall"
    with pytest.raises(KeyboardInterrupt):
        pull_from(hub, folder, display=InterruptingDisplay())
    assert partial_files(folder) == [CONTENT[:HALF]]
    hub.fault = ""


def test_silent_storage_times_out_and_the_next_pull_resumes(
    hub: ModelHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.fault = "stall"
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 1.0)
    assert "did not answer in time" in pull_error(hub, tmp_path)
    assert partial_files(tmp_path) == [CONTENT[:HALF]]
    hub.fault = ""
    pulled, shown = pull_from(hub, tmp_path)
    assert hub.ranges()[-1] == f"bytes={HALF}-"
    assert pulled.path.read_bytes() == CONTENT
    assert any(sentence.startswith("Going on with m.gguf at") for sentence in shown.sentences)
    assert shown.counts[0] == HALF


def test_download_fails_after_repeated_storage_errors(hub: ModelHub, tmp_path: Path) -> None:
    hub.fault, hub.cuts = "errors", 1000
    assert "answered with status 500" in pull_error(hub, tmp_path)
    assert len(hub.storage_requests) == 2


@pytest.mark.parametrize("fault", ["ignores-range", "other-range", "page"])
def test_wrong_range_from_the_storage_does_not_damage_the_partial_file(
    hub: ModelHub, tmp_path: Path, fault: str
) -> None:
    _interrupt_pull(hub, tmp_path)
    hub.fault, hub.cuts = fault, 0
    if fault == "ignores-range":
        assert pull_from(hub, tmp_path)[0].path.read_bytes() == CONTENT
        return
    assert "broke off" in pull_error(hub, tmp_path)
    assert partial_files(tmp_path) == [CONTENT[:HALF]]


def test_oversized_partial_file_restarts_the_download(hub: ModelHub, tmp_path: Path) -> None:
    _interrupt_pull(hub, tmp_path)
    partial = next((tmp_path / download_folder.UNFINISHED_FOLDER).glob("*.part"))
    partial.write_bytes(CONTENT + b"more")
    assert pull_from(hub, tmp_path)[0].path.read_bytes() == CONTENT


def test_changed_content_restarts_the_download_and_removes_the_old_part(hub: ModelHub, tmp_path: Path) -> None:
    _interrupt_pull(hub, tmp_path)
    hub.files[f"{REPO}/m.gguf"] = new = random_model(5)
    pulled, _ = pull_from(hub, tmp_path)
    assert pulled.path.read_bytes() == new
    assert not partial_files(tmp_path)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("wrong-bytes", "m.gguf does not have the SHA-256 that 127.0.0.1:.* gives for it; it has been removed"),
        ("too-much", "sent more bytes of m.gguf than it announced"),
    ],
)
def test_unannounced_content_is_removed_and_the_next_pull_succeeds(
    hub: ModelHub, tmp_path: Path, fault: str, sentence: str
) -> None:
    hub.fault = fault
    with pytest.raises(DownloadError, match=sentence):
        pull_from(hub, tmp_path)
    assert not any(partial_files(tmp_path))
    hub.fault = ""
    assert pull_from(hub, tmp_path)[0].path.read_bytes() == CONTENT


def test_downloaded_file_that_is_no_gguf_is_refused(hub: ModelHub, tmp_path: Path) -> None:
    hub.files[f"{REPO}/m.gguf"] = b"PK" + CONTENT
    assert "m.gguf is no GGUF file" in pull_error(hub, tmp_path)
    assert not partial_files(tmp_path)


@pytest.mark.parametrize("fault", ["", "no-checksum"])
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (CONTENT[:-1], "m.gguf is truncated"),
        (b"GGUF" + bytes([3, 0, 0, 0]) + b"\xff" * 400, "m.gguf says in its header that it has -1 of something"),
        (gguf_bytes(tensors=(2**20,))[:500], "m.gguf is truncated"),
    ],
)
def test_downloaded_file_whose_header_lies_is_refused(
    hub: ModelHub, tmp_path: Path, content: bytes, sentence: str, fault: str
) -> None:
    """The hub may well give the right checksum of a file that is made to harm its reader."""
    hub.fault = fault
    hub.files[f"{REPO}/m.gguf"] = content
    assert sentence in pull_error(hub, tmp_path)
    assert not partial_files(tmp_path)


@pytest.mark.parametrize(
    ("headers", "sentence"),
    [
        ({"X_Linked_Size": "-5"}, "does not answer as a Hugging Face Hub does"),
        ({"X_Linked_Size": "0"}, "does not answer as a Hugging Face Hub does"),
        ({"X_Repo_Commit": "../../../evil"}, "does not answer as a Hugging Face Hub does"),
        ({"X_Linked_Size": str(len(CONTENT) - 1)}, "sent more bytes of m.gguf than it announced"),
        ({"X_Linked_Size": str(len(CONTENT) + 1)}, "broke off"),
    ],
)
def test_hub_that_lies_about_a_file_is_refused(
    hub: ModelHub, tmp_path: Path, headers: dict[str, str], sentence: str
) -> None:
    hub.lies = headers
    assert sentence in pull_error(hub, tmp_path)


def test_names_of_a_hostile_listing_are_shown_harmlessly(hub: ModelHub, tmp_path: Path) -> None:
    hub.files[f"{REPO}/\x1b]0;owned\x07\n.gguf"] = b""
    hub.files |= {f"{REPO}/many-{number}.gguf": b"" for number in range(1000)}
    said = pull_error(hub, tmp_path, f"{REPO}:n.gguf")
    assert said.isprintable()
    assert "?]0;owned??.gguf" in said
    assert len(said) < 10_000


def test_missing_checksum_is_reported(hub: ModelHub, tmp_path: Path) -> None:
    hub.fault = "no-checksum"
    pulled, shown = pull_from(hub, tmp_path)
    assert pulled.path.read_bytes() == CONTENT
    assert any("its size alone is checked" in sentence for sentence in shown.sentences)


def test_parts_of_a_split_model_are_downloaded_with_the_first_one_last(hub: ModelHub, tmp_path: Path) -> None:
    parts = {f"m-0000{number}-of-00003.gguf": random_model(number, 1000) for number in (1, 2, 3)}
    hub.files.update({f"{REPO}/q/{name}": content for name, content in parts.items()})
    pulled, _ = pull_from(hub, tmp_path, f"{REPO}:q/m-00002-of-00003.gguf")
    assert pulled == PullResult(tmp_path / "m-00001-of-00003.gguf", sum(map(len, parts.values())))
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.gguf")} == parts
    assert [each.path.partition("-of-")[0][-1] for each in hub.storage_requests] == ["3", "2", "1"]
    del hub.files[f"{REPO}/q/m-00003-of-00003.gguf"]
    with pytest.raises(DownloadError, match=r"has no file q/m-00003-of-00003\.gguf"):
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
def test_failed_pull_is_explained_in_one_sentence_without_a_download(
    hub: ModelHub, tmp_path: Path, fault: str, given: str, revision: str, sentence: str
) -> None:
    hub.fault = fault
    said = pull_error(hub, tmp_path, given, revision)
    assert sentence in said
    assert "\n" not in said
    assert not hub.storage_requests


def test_silent_hub_times_out(hub: ModelHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.fault = "silent"
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.2)
    assert "did not answer in time" in pull_error(hub, tmp_path)


@pytest.mark.parametrize(
    "endpoint", ["huggingface.co", "ftp://me:secret@hub", "http://", "http://hub:port", "http://[hub", "http://hub:0"]
)
def test_invalid_hub_address_is_refused_without_showing_its_password(endpoint: str) -> None:
    with pytest.raises(DownloadError, match="HF_ENDPOINT is no address of a hub") as refused:
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
def test_invalid_proxy_or_certificate_setting_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, sentence: str
) -> None:
    close_session()
    monkeypatch.setenv(variable, value)
    with pytest.raises(DownloadError, match=sentence) as refused:
        Hub("https://hub.invalid")
    assert "secret" not in str(refused.value)


def test_unreadable_token_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path))
    with pytest.raises(DownloadError, match=r"HF_TOKEN_PATH: the token in .* cannot be read: Is a directory"):
        Hub("https://hub.invalid")


def test_token_opens_a_gated_model_and_is_sent_only_to_the_hub(
    hub: ModelHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.fault = "gated"
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    pull_from(hub, tmp_path)
    assert {each.authorization for each in hub.hub_requests} == {"Bearer hf_good"}
    assert {each.authorization for each in hub.storage_requests} == {None}


def test_second_pull_into_the_same_folder_is_refused(hub: ModelHub, tmp_path: Path) -> None:
    unfinished = tmp_path / download_folder.UNFINISHED_FOLDER
    unfinished.mkdir()
    with FileLock(unfinished / "lock"):
        assert "Another download into" in pull_error(hub, tmp_path)


def test_target_folder_that_cannot_be_made_is_named(hub: ModelHub, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert pull_error(hub, tmp_path / "file").startswith(f"{tmp_path / 'file'}")


def test_printed_env_lines_are_read_back_by_dotenv(tmp_path: Path) -> None:
    folder = tmp_path / "it's a #1 model"
    folder.mkdir()
    pulled = PullResult(folder / "m.gguf", 4_372_812_000)
    env = tmp_path / ".env"
    env.write_text("\n".join(env_lines(parse_source("mistral-7b-instruct"), pulled)))
    assert dotenv_values(env) == {
        "MODEL_PATH": str(pulled.path),
        "MODEL_ALIAS": "mistral-7b-instruct",
        "CONTEXT_SIZE": "32768",
        "GPU_LAYERS": "auto",
    }
    assert "12 on a card of 4 GB, 20 on a card of 6 GB, 28 on a card of 8 GB" in env.read_text()
    assert len(env_lines(parse_source(f"{REPO}:m.gguf"), pulled)) == 2


def test_projector_of_a_repository_is_pulled_beside_its_model_under_a_name_of_its_own(
    hub: ModelHub, tmp_path: Path
) -> None:
    projector = random_model(9, 2000)
    hub.files |= {f"{REPO}/mmproj-{kind}.gguf": projector for kind in ("BF16", "F16", "F32")}
    pulled, _ = pull_from(hub, tmp_path, with_projector=True)
    path = tmp_path / "mmproj-someone_model-F16.gguf"
    assert pulled.projector == PullResult(path, len(projector))
    assert path.read_bytes() == projector
    assert [each.path.partition("?")[0].rpartition("/")[2] for each in hub.storage_requests] == [
        "mmproj-F16.gguf",
        "m.gguf",
    ]
    lines = env_lines(parse_source(f"{REPO}:m.gguf"), pulled)
    assert lines[-1] == f"LLAMA_ARG_MMPROJ={path}"
    assert env_lines(parse_source(f"{REPO}:mmproj-F16.gguf"), pulled) == [f"LLAMA_ARG_MMPROJ={pulled.path}"]


def test_model_is_pulled_where_the_hub_does_not_tell_whether_it_has_a_projector(hub: ModelHub, tmp_path: Path) -> None:
    hub.fault = "bad-listing"
    pulled, shown = pull_from(hub, tmp_path, with_projector=True)
    assert (pulled.path.read_bytes(), pulled.projector) == (CONTENT, None)
    assert any(sentence.startswith("Whether the model has a projector") for sentence in shown.sentences)
