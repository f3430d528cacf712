"""Model files: GGUF, the models known to work, the memory they need, and the Hugging Face Hub."""
