"""Model files: reading GGUF, the served model, models known to work and their memory, the Hugging Face Hub."""
