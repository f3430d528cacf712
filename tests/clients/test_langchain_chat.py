"""The standard tests of langchain-tests, run over chat completions."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from tests.support.langchain_chat import StackChatModelTests

pytestmark = [
    # The openai package's own parse() does not declare the type of the parsed value.
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning"),
    # A standard test uses what langchain-openai warns of.
    pytest.mark.filterwarnings("ignore:Received a Pydantic BaseModel V1 schema:UserWarning"),
]


class TestChatCompletions(StackChatModelTests):
    """The tests with usage in streams, as OpenAI's own service sends it by default."""

    api: ClassVar[dict[str, Any]] = {"stream_usage": True}
