"""The process that delivers, and does nothing else: started by ``bin/serve``, or as ``mistral-api deliver``."""
