"""What constraints must pass: a scope, the quarantine, a trial whose verdict is remembered."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mistral_api.constraints import trial_process, trial_queue
from mistral_api.constraints.gate import ConstraintGate
from mistral_api.constraints.trial_model import plain_tokenizer, write_trial_model
from mistral_api.constraints.trial_process import Trial, TrialProcess, Verdict
from mistral_api.constraints.verdicts import MOST_VERDICTS, VerdictStore
from mistral_api.control.feedback import ConstraintUse, Feedback, FeedbackReader, FeedbackWriter, Standing
from mistral_api.control.quarantine import (
    QuarantineReader,
    blame_constraints,
    clear_quarantine,
    quarantine_file,
    read_quarantine,
)
from mistral_api.errors import Forbidden, InvalidRequest, Unavailable
from mistral_api.model_files.gguf import read_tokenizer
from mistral_api.security.access import Caller
from mistral_api.security.api_key import ALL_SCOPES, DEFAULT_SCOPES
from mistral_api.system.backoff import Backoff

OWNER = Caller("local", "127.0.0.1", True, ALL_SCOPES)
WORKED, HARMLESS = Standing.WORKED, Standing.HARMLESS
STRANGER = Caller("local", "192.0.2.1", False, frozenset())
GRAMMAR = {"grammar": 'root ::= "a"'}
KILLER = {"grammar": "root ::= " + "[a-z]* " * 60}


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[ConstraintGate]:
    """A gate in front of a model that nobody knows."""
    made = ConstraintGate(tmp_path, lambda: None)
    yield made
    made.close()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a trial wait long for its processor time, so that a busy machine leaves none undecided."""
    monkeypatch.setattr(trial_process, "WALL_SECONDS", 30.0)


class _Judge:
    """Takes the place of the process of trials, and counts the trials."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, verdict: Verdict) -> None:
        self.trials = 0
        self._verdict = verdict
        monkeypatch.setattr(TrialProcess, "judge", self._judge)

    def _judge(self, _requests: Any) -> Verdict:
        self.trials += 1
        return self._verdict


@pytest.mark.parametrize("scopes", [frozenset[str](), DEFAULT_SCOPES])
def test_grammar_needs_its_scope_and_schemas_need_none(gate: ConstraintGate, scopes: frozenset[str]) -> None:
    caller = Caller("local", "192.0.2.1", False, scopes)
    with pytest.raises(Forbidden) as caught:
        gate.admit(GRAMMAR, caller)
    assert (caught.value.status, caught.value.code, caught.value.param) == (403, "insufficient_scope", "grammar")
    assert gate.admit({"json_schema": {"type": "object"}}, caller).uses


def test_request_without_constraints_passes_untouched(gate: ConstraintGate) -> None:
    assert not gate.admit({"messages": [], "tools": [], "grammar": "", "json_schema": None}, STRANGER).uses
    assert not gate.admit(["no object"], STRANGER).uses


@pytest.mark.parametrize(("verdict", "error"), [(Verdict.HARMLESS, None), (Verdict.TOO_COSTLY, InvalidRequest)])
def test_verdict_is_remembered_also_by_the_next_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verdict: Verdict, error: type[Exception] | None
) -> None:
    judge = _Judge(monkeypatch, verdict)
    for made in (ConstraintGate(tmp_path, lambda: None), ConstraintGate(tmp_path, lambda: None)):
        for _ in range(2):
            if error is None:
                assert made.admit(GRAMMAR, OWNER).uses
            else:
                with pytest.raises(error, match="'grammar' would hold up the model server"):
                    made.admit(GRAMMAR, OWNER)
        made.close()
    assert judge.trials == 1


def test_undecided_trial_is_made_again_and_an_impossible_one_admits(
    gate: ConstraintGate, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = _Judge(monkeypatch, Verdict.UNDECIDED)
    for _ in range(2):
        with pytest.raises(Unavailable):
            gate.admit(GRAMMAR, OWNER)
    assert judge.trials == 2
    _Judge(monkeypatch, Verdict.UNAVAILABLE)
    assert gate.admit(GRAMMAR, OWNER).uses


def test_too_many_that_wait_for_a_trial_are_sent_away(gate: ConstraintGate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_queue, "WAIT_SECONDS", 0.05)
    with gate._queue.turn("another"), pytest.raises(Unavailable):
        gate.admit(GRAMMAR, OWNER)


def test_trial_on_a_plain_vocabulary_finds_a_killer(gate: ConstraintGate, patient: None) -> None:
    began = time.monotonic()
    assert gate.admit(GRAMMAR, OWNER).uses
    with pytest.raises(InvalidRequest) as caught:
        gate.admit(KILLER, OWNER)
    assert (caught.value.code, caught.value.param) == ("constraint_too_costly", "grammar")
    assert time.monotonic() - began < 60
    assert gate.admit({"grammar": 'root ::= "b"'}, OWNER).uses  # in a new process


def test_process_of_trials_ends_with_its_owner_in_the_middle_of_a_trial(tmp_path: Path, patient: None) -> None:
    trials = TrialProcess(write_trial_model(None, tmp_path))
    assert trials.judge(Trial([("completions", {"prompt": "x", "n_predict": 1})])) is Verdict.HARMLESS
    process = trials._process
    assert process is not None
    assert process.stdin is not None
    trials._send(("completions", {"prompt": "x", "n_predict": 500, **KILLER}))
    process.stdin.close()
    assert process.wait(timeout=15) == 0
    trials.close()


def test_closed_gate_remembers_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = ConstraintGate(tmp_path, lambda: None)

    def end(_trials: TrialProcess, _requests: Any) -> Verdict:
        closed.close()
        return Verdict.TOO_COSTLY

    monkeypatch.setattr(TrialProcess, "judge", end)
    with pytest.raises(Unavailable):
        closed.admit(GRAMMAR, OWNER)
    assert not (tmp_path / "constraints" / "verdicts.jsonl").exists()


def test_known_constraint_costs_a_lookup(gate: ConstraintGate, monkeypatch: pytest.MonkeyPatch) -> None:
    _Judge(monkeypatch, Verdict.HARMLESS)
    gate.admit(GRAMMAR, OWNER)
    began = time.process_time()
    for _ in range(1000):
        gate.admit(GRAMMAR, OWNER)
    assert time.process_time() - began < 0.5


def test_model_of_trials_has_the_vocabulary_of_the_model(tmp_path: Path) -> None:
    plain = write_trial_model(None, tmp_path / "a")
    assert read_tokenizer(plain).tokens == plain_tokenizer().tokens
    copied = write_trial_model(plain, tmp_path / "b")
    assert read_tokenizer(copied) == read_tokenizer(plain)
    assert write_trial_model(plain, tmp_path / "b") == copied
    (tmp_path / "no-model").write_bytes(b"GGUF nonsense")
    assert read_tokenizer(write_trial_model(tmp_path / "no-model", tmp_path / "c")).tokens == plain_tokenizer().tokens


def test_verdicts_are_bounded_and_costly_ones_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "verdicts.jsonl"
    store = VerdictStore(path)
    for number in range(MOST_VERDICTS + 10):
        store.add(str(number), Verdict.HARMLESS)
    store.add("bad", Verdict.TOO_COSTLY)
    path.write_text(path.read_text(encoding="utf-8") + "[cut off")
    again = VerdictStore(path)
    assert len(path.read_text(encoding="utf-8").splitlines()) < MOST_VERDICTS
    assert (again.find("0"), again.find(str(MOST_VERDICTS)), again.find("bad")) == (None, "harmless", "too costly")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 601)
    assert again.find("bad") is None


def _use(digest: str, standing: Standing = Standing.NEW, *, closed_at: float | None = None) -> ConstraintUse:
    return ConstraintUse(digest, standing, 100.0, closed_at)


def test_hang_is_blamed_on_what_is_new_and_was_open(tmp_path: Path) -> None:
    uses = [_use("new"), _use("old", WORKED), _use("left", closed_at=199.0), _use("long gone", closed_at=150.0)]
    assert blame_constraints(tmp_path, uses, hung_since=200.0) == ["new", "left"]
    assert set(read_quarantine(tmp_path).until) == {"new", "left"}
    assert blame_constraints(tmp_path, [], hung_since=200.0) == []


def test_second_hang_is_blamed_on_what_has_worked_before(tmp_path: Path) -> None:
    assert blame_constraints(tmp_path, [_use("a", WORKED), _use("b", WORKED)], 200.0) == []
    assert blame_constraints(tmp_path, [_use("a", WORKED), _use("c", WORKED)], 200.0) == ["a"]
    assert set(read_quarantine(tmp_path).until) == {"a"}


def test_what_is_harmless_is_blamed_only_where_nothing_else_was_open(tmp_path: Path) -> None:
    small = _use("small", HARMLESS)
    for _ in range(3):
        assert blame_constraints(tmp_path, [small, _use("new")], 200.0) == ["new"]
    assert blame_constraints(tmp_path, [small, _use("old", WORKED)], 200.0) == []
    assert blame_constraints(tmp_path, [small, _use("old", WORKED)], 200.0) == ["old"]
    assert blame_constraints(tmp_path, [small], 200.0) == []
    assert blame_constraints(tmp_path, [small, _use("other", HARMLESS)], 200.0) == ["small"]


def test_quarantine_lasts_a_day_and_can_be_cleared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = QuarantineReader(tmp_path)
    assert reader.is_empty
    blame_constraints(tmp_path, [_use("a"), _use("b")], 200.0)
    assert reader.is_quarantined("a")
    assert clear_quarantine(tmp_path, ["a"]) == 1
    assert (reader.is_quarantined("a"), reader.is_quarantined("b")) == (False, True)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 86_401)
    assert not reader.is_quarantined("b")
    assert not read_quarantine(tmp_path).until


@pytest.mark.parametrize("content", ["", "[]", '{"until": 1}', '{"until": {"a": "x"}, "suspected": {}}', "\xff"])
def test_damaged_quarantine_is_an_empty_one(tmp_path: Path, content: str) -> None:
    blame_constraints(tmp_path, [_use("a")], 200.0)
    quarantine_file(tmp_path).write_text(content, encoding="latin-1")
    assert not QuarantineReader(tmp_path).is_quarantined("a")
    assert blame_constraints(tmp_path, [_use("b")], 200.0) == ["b"]


def test_quarantined_constraint_is_refused_by_its_path(gate: ConstraintGate, tmp_path: Path) -> None:
    body = {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]}
    admitted = gate.admit(body, STRANGER)
    admitted.require_free()
    blame_constraints(tmp_path, [_use(use.digest) for use in admitted.uses], 200.0)
    for refuse in (admitted.require_free, lambda: gate.admit(body, STRANGER)):
        with pytest.raises(InvalidRequest) as caught:
            refuse()
        assert caught.value.code == "constraint_quarantined"
        assert caught.value.param == "tools[0].function.parameters"


def _uses(data_dir: Path, writer: FeedbackWriter) -> list[ConstraintUse]:
    writer.flush()
    found: Feedback = FeedbackReader(data_dir).read()
    return list(found.constraints)


def test_feedback_has_the_constraints_in_use_and_those_that_failed(tmp_path: Path) -> None:
    writer = FeedbackWriter(tmp_path)
    numbers = [writer.open_constraint(digest, WORKED if digest == "b" else Standing.NEW) for digest in "abc"]
    writer.close_constraint(numbers[0], succeeded=True)
    writer.close_constraint(numbers[2], succeeded=False)
    found = _uses(tmp_path, writer)
    assert [(use.digest, use.standing, use.closed_at is None) for use in found] == [
        ("b", "worked", True),
        ("c", "new", False),
    ]


def test_constraints_that_failed_are_bounded_in_the_feedback(tmp_path: Path) -> None:
    writer = FeedbackWriter(tmp_path)
    for number in range(1000):
        writer.close_constraint(writer.open_constraint(str(number), Standing.NEW), succeeded=False)
    found = _uses(tmp_path, writer)
    assert len(found) == 256
    assert found[-1].digest == "999"


def test_server_given_up_for_hangs_is_tried_again_more_and_more_slowly() -> None:
    backoff = Backoff(0)
    assert [backoff.next_slow_delay() for _ in range(5)] == [300, 600, 1200, 2400, 3600]
    backoff.next_delay(healthy_seconds=61)
    assert backoff.next_slow_delay() == 300
