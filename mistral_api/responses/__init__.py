"""OpenAI's Responses API: from its requests to chat completions and back, its state, and its background work."""
