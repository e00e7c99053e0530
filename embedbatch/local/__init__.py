"""
The embedded model behind ``model="local"``: vectors without a key and without a network.

It is reached the way every other endpoint is: :class:`LocalApp` is an ASGI app that speaks ``POST /v1/embeddings``.
The model is WordLlama, 256 static dimensions; its weights derive from the token embeddings of Llama 2 and Phi-3.
"""

from .app import LocalApp
from .model import LocalModel, LocalTokenizer, load

__all__ = ["LocalApp", "LocalModel", "LocalTokenizer", "load"]
