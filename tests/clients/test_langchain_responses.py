"""The standard tests of langchain-tests, run over the Responses API."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from tests.support.langchain_chat import StackChatModelTests

# A standard test uses what langchain-openai warns of.
pytestmark = pytest.mark.filterwarnings("ignore:Received a Pydantic BaseModel V1 schema:UserWarning")


class TestResponses(StackChatModelTests):
    """The tests with the client switched to the Responses API."""

    api: ClassVar[dict[str, Any]] = {"use_responses_api": True}
    least_tokens = 16  # OpenAI's minimum here
