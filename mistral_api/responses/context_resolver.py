"""What responses continue, and how much of it the model gets."""

from __future__ import annotations

from mistral_api.conversations.history import HistoryReader
from mistral_api.conversations.message_matching import is_system_message
from mistral_api.conversations.session_resolver import ResolvedSession
from mistral_api.generation.prompt import PromptBuilder, turns_of
from mistral_api.generation.prompt_size import chat_size
from mistral_api.payload_types import omit
from mistral_api.payload_types.chat import ChatMessage, ChatPayload
from mistral_api.payload_types.responses import Item, ResponsePayload
from mistral_api.responses.prepared_response import PreparedResponse
from mistral_api.responses.response_store import ResponseStore
from mistral_api.responses.stored_responses import StoredContext
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.token_counter import TokenCounter
from mistral_api.wire.items import item_type


class ContextResolver:
    """Finds what requests continue. Safe to use from many threads."""

    def __init__(
        self,
        store: ResponseStore,
        history: HistoryReader,
        prompts: PromptBuilder,
        counter: TokenCounter,
    ) -> None:
        self._prompts = prompts
        self._store = store
        self._history = history
        self._counter = counter

    def named_context(self, request: ResponsePayload, owner: str) -> StoredContext | None:
        """Return what a request says that it continues, None where it says nothing.

        Raises InvalidRequest (``previous_response_not_found``), NotFound for a conversation, Unavailable.
        """
        if "previous_response_id" in request:
            return self._store.context(owner, request["previous_response_id"])
        if "conversation" in request:
            return self._conversation(owner, request["conversation"])
        return self._session(owner, request["session_id"]) if "session_id" in request else None

    def found_context(self, resolved: ResolvedSession, owner: str, sent: list[ChatMessage]) -> StoredContext:
        """Return the context of a request whose conversation was found in another way. Raises Unavailable.

        A client that sends its history gets no messages of the conversation put before it.
        """
        has_answer = any(message["role"] == "assistant" for message in sent)
        if resolved.is_new or resolved.resends_history or has_answer:
            return StoredContext(resolved.session_id)
        return self._session(owner, resolved.session_id)

    def _conversation(self, owner: str, conversation_id: str) -> StoredContext:
        branch = self._history.existing_branch(owner, conversation_id, "conversation")
        return StoredContext(conversation_id, branch.head_id, branch.prompt_messages)

    def _session(self, owner: str, session_id: str) -> StoredContext:
        """Return a session with all its messages; it need not exist yet."""
        branch = self._history.branch(owner, session_id)
        return StoredContext(session_id, branch.head_id, branch.prompt_messages)

    def resolve_references(self, items: list[Item], owner: str) -> list[Item]:
        """Return input items, the referenced ones in place of their references.

        Raises InvalidRequest, NotFound and Unavailable.
        """
        if not any(item_type(item) == "item_reference" for item in items):
            return items
        return self._history.resolve_references(owner, items, "input")

    def fit(self, prepared: PreparedResponse, call: UpstreamCall) -> list[ChatMessage]:
        """Return the messages that the model gets, with the images that they name by URLs. With ``truncation: auto``
        the oldest turns that do not fit are left out.

        Raises InvalidRequest where the model server does not count tokens, and our exceptions.
        """
        messages = self._prompts.images.inline(prepared.messages, prepared.request, call)
        if prepared.request.get("truncation") != "auto":
            self._require_fit(prepared, call)
            return messages
        leading, others = _split_system(messages)
        last_turn = turns_of(others)[-1] if others else []
        self._prompts.limit.require_fit(chat_size([*leading, *last_turn], None, "input"), call)
        return self._prompts.truncated(leading, others, [], prepared.payload([]), call)

    def count_tokens(self, prepared: PreparedResponse, call: UpstreamCall) -> int:
        """Return how many tokens the prompt has. Raises our exceptions."""
        self._require_fit(prepared, call)
        messages = self._prompts.images.inline(prepared.messages, prepared.request, call)
        messages = self._prompts.fit_roles(messages, call)
        return self._counter.count_tokens(messages, options=_options(prepared), call=call)

    def _require_fit(self, prepared: PreparedResponse, call: UpstreamCall) -> None:
        """Refuse text that is longer than the context could ever hold. Raises InvalidRequest."""
        self._prompts.limit.require_fit(chat_size(prepared.messages, _options(prepared), "input"), call)


def _split_system(messages: list[ChatMessage]) -> tuple[list[ChatMessage], list[ChatMessage]]:
    """Return the system messages, which always stay, and the others."""
    leading = [message for message in messages if is_system_message(message)]
    return leading, [message for message in messages if not is_system_message(message)]


def _options(prepared: PreparedResponse) -> ChatPayload:
    """Return the fields of the request that change its prompt."""
    return omit(prepared.payload([]), ("messages",))
