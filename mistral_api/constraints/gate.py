"""The gate that constraints pass before a request goes to the model server: scope, quarantine, trial."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mistral_api.constraints.trial_model import vocabulary_version, write_trial_model
from mistral_api.constraints.trial_process import TrialProcess, Verdict
from mistral_api.constraints.trial_queue import TrialQueue, too_busy
from mistral_api.constraints.trial_requests import trial_of
from mistral_api.constraints.verdicts import VerdictStore
from mistral_api.control.feedback import Standing
from mistral_api.control.quarantine import QuarantineReader
from mistral_api.errors import Forbidden, InvalidRequest
from mistral_api.security.access import Caller
from mistral_api.security.api_key import GRAMMAR
from mistral_api.wire.constraint_cost import TOO_COSTLY
from mistral_api.wire.constraint_places import (
    GRAMMAR_FIELD,
    Constraint,
    PlacedSchema,
    find_grammar,
    find_schemas,
    schema_constraint,
)

log = logging.getLogger(__name__)

QUARANTINED = "constraint_quarantined"
# The most constraints that are known to have been used with success.
_MOST_WORKED = 10_000


@dataclass(frozen=True, slots=True)
class Admitted:
    """A constraint that may be used. ``path``: where the request holds it."""

    digest: str
    path: str
    standing: Standing


class AdmittedConstraints:
    """The constraints of one request, from their admission on."""

    def __init__(self, uses: Sequence[Admitted] = (), gate: ConstraintGate | None = None) -> None:
        self.uses = uses
        self._gate = gate

    def require_free(self) -> None:
        """Raise InvalidRequest where one has been quarantined meanwhile."""
        if self._gate is not None:
            self._gate.require_free(self.uses)

    def note_success(self) -> None:
        """Remember that all of them work."""
        if self._gate is not None:
            self._gate.note_success(self.uses)


NO_CONSTRAINTS = AdmittedConstraints()


class ConstraintGate:
    """Admits or refuses constraints. One for the application; safe to use from many threads.

    Owns the process of trials, from the first trial to :meth:`close`.
    """

    def __init__(
        self, data_dir: Path, model: Callable[[], Path | None], enforces: Callable[[], bool] = lambda: True
    ) -> None:
        """``model`` returns the file of the model served, None where nobody knows it.

        ``enforces``: whether the model server is llama.cpp, which is told to enforce no more than it can.
        """
        self._folder = data_dir / "constraints"
        self._model = model
        self._enforces = enforces
        self._quarantine = QuarantineReader(data_dir)
        self._verdicts = VerdictStore(self._folder / "verdicts.jsonl")
        self._worked: dict[str, None] = {}
        self._queue = TrialQueue()
        self._process: TrialProcess | None = None
        self._engine = _engine_version()
        # The model whose vocabulary was looked at last, and its version: one tuple, replaced at once.
        self._known_vocabulary: tuple[Path | None, str] = (None, vocabulary_version(None))
        self._closed = False

    def admit(
        self, body: object, caller: Caller, others: Sequence[PlacedSchema | Constraint] = (), *, forced: bool = False
    ) -> AdmittedConstraints:
        """Admit the constraints of a valid request. ``others``: those that its body does not hold as what they become.

        These are the grammars of custom tools, and what tools bring that the conversation has stored. ``forced``: the
        loaded choice among the tools demands a call.

        Raises Forbidden for a grammar of a caller without the scope; InvalidRequest for a schema that cannot be
        enforced, and for a constraint that is quarantined or too costly, with the path of its field; Unavailable where
        too many wait for their trial.
        """
        constraints = self._constraints_of(body, caller, others, forced=forced) if isinstance(body, dict) else []
        if not constraints:
            return NO_CONSTRAINTS
        harmless, doubtful = _by_harmlessness(constraints)
        uses = [self._as_admitted(each) for each in doubtful] + _admitted_together(harmless)
        self.require_free(uses)
        for each in doubtful:
            self._require_cheap(each, caller.owner)
        return AdmittedConstraints(uses, self)

    def _constraints_of(
        self, body: dict[str, Any], caller: Caller, others: Sequence[PlacedSchema | Constraint], *, forced: bool
    ) -> list[Constraint]:
        """Return what the model server will be told to enforce."""
        grammar = find_grammar(body)
        if grammar is not None and GRAMMAR not in caller.scopes:
            raise Forbidden(f"'{GRAMMAR_FIELD}' needs the scope '{GRAMMAR}'.", param=GRAMMAR_FIELD)
        grammars = [each for each in (*others, grammar) if isinstance(each, Constraint)]
        schemas = [*find_schemas(body), *(each for each in others if isinstance(each, PlacedSchema))]
        if not schemas or not self._enforces():
            return [*(schema_constraint(each.path, each.schema) for each in schemas), *grammars]
        from mistral_api.constraints.schemas.admission import enforced_constraints  # noqa: PLC0415 - brings 1 MB

        return [*enforced_constraints(schemas, body, forced=forced), *grammars]

    def _as_admitted(self, constraint: Constraint) -> Admitted:
        digest = constraint.digest.hex()
        return Admitted(digest, constraint.path, Standing.WORKED if digest in self._worked else Standing.NEW)

    def require_free(self, uses: Sequence[Admitted]) -> None:
        """Raise InvalidRequest (``constraint_quarantined``) for the first that is quarantined."""
        if not uses or self._quarantine.is_empty:
            return
        for use in uses:
            if self._quarantine.is_quarantined(use.digest):
                raise InvalidRequest(
                    f"'{use.path}' is refused for a day: the model server hung while this constraint was in use "
                    f"({use.digest[:12]}).",
                    code=QUARANTINED,
                    param=use.path,
                )

    def note_success(self, uses: Sequence[Admitted]) -> None:
        """Remember that a generation with these constraints has succeeded."""
        if len(self._worked) > _MOST_WORKED:
            self._worked.clear()
        self._worked.update(dict.fromkeys(use.digest for use in uses))

    def _require_cheap(self, constraint: Constraint, owner: str) -> None:
        verdict = self._verdict(constraint, owner)
        if verdict is Verdict.TOO_COSTLY:
            text = f"'{constraint.path}' would hold up the model server: a trial of this constraint took too long."
            raise InvalidRequest(text, code=TOO_COSTLY, param=constraint.path)
        if verdict is Verdict.UNDECIDED:
            raise too_busy()

    def _verdict(self, constraint: Constraint, owner: str) -> Verdict:
        """Return what is known of a constraint, after a trial where that is nothing."""
        known = self._verdicts.find(self._key(constraint))
        if known is not None:
            return known
        with self._queue.turn(owner):
            return self._try_out(constraint)

    def _try_out(self, constraint: Constraint) -> Verdict:
        known = self._verdicts.find(self._key(constraint))
        if known is not None:  # another request has had it tried out meanwhile
            return known
        process = self._trial_process()
        verdict = Verdict.UNAVAILABLE if process is None else process.judge(trial_of(constraint))
        if self._closed:  # which has ended the process of the trial
            return Verdict.UNDECIDED
        if verdict in (Verdict.HARMLESS, Verdict.TOO_COSTLY):
            self._verdicts.add(self._key(constraint), verdict)
        return verdict

    def _key(self, constraint: Constraint) -> str:
        """Return what a verdict is remembered by: the constraint, the engine and the vocabulary."""
        return f"{constraint.digest.hex()}:{self._engine}:{self._vocabulary()}"

    def _vocabulary(self) -> str:
        model = self._model()
        if self._known_vocabulary[0] != model:
            self._known_vocabulary = model, vocabulary_version(model)
        return self._known_vocabulary[1]

    def _trial_process(self) -> TrialProcess | None:
        """Return the process of trials on the model served now.

        None where it cannot be made, or this gate is closed.
        """
        if self._closed:
            return None
        try:
            path = write_trial_model(self._model(), self._folder)
        except OSError as error:
            log.warning("grammars and JSON schemas cannot be tried out: %s", error)
            return None
        if self._process is None or self._process.model != path:
            if self._process is not None:
                self._process.close()
            self._process = TrialProcess(path)
        return self._process

    def close(self) -> None:
        """End the process of trials."""
        self._closed = True
        if self._process is not None:
            self._process.close()


def _by_harmlessness(constraints: Sequence[Constraint]) -> tuple[list[Constraint], list[Constraint]]:
    """Return those that are surely harmless, and the others."""
    harmless: list[Constraint] = []
    others: list[Constraint] = []
    for each in constraints:
        (harmless if each.is_harmless() else others).append(each)
    return harmless, others


def _admitted_together(harmless: Sequence[Constraint]) -> list[Admitted]:
    """Return constraints that are harmless as one, since only together could they be at fault."""
    if not harmless:
        return []
    together = hashlib.blake2b(b"".join(each.digest for each in harmless), digest_size=16).hexdigest()
    return [Admitted(together, harmless[0].path, Standing.HARMLESS)]


def _engine_version() -> str:
    try:
        return version("xllamacpp")
    except PackageNotFoundError:
        return "none"
