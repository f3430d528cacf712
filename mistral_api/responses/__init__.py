"""The Responses API between its requests and chat completions: pure functions, no database and no HTTP."""
