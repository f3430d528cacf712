"""The Responses API: from its requests to chat completions and back, its state, and what runs in the background."""
