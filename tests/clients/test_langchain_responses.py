"""The standard tests of langchain-tests, over the Responses API."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from tests.support.langchain_chat import OverTheStack

# A standard test asks for what langchain-openai advises against.
pytestmark = pytest.mark.filterwarnings("ignore:Received a Pydantic BaseModel V1 schema:UserWarning")


class TestResponses(OverTheStack):
    """The same client, one switch away."""

    api: ClassVar[dict[str, Any]] = {"use_responses_api": True}
    least_tokens = 16  # OpenAI takes no fewer here
