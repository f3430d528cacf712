"""Models on the Hugging Face Hub: those known to work, the memory they need, and getting them onto this machine."""
