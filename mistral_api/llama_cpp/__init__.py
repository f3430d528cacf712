"""llama.cpp's own endpoints for raw prompts, and its questions (tools/server/README.md)."""
