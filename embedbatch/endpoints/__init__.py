"""What one server accepts, and what is known about models."""

from .endpoint import Endpoint
from .models import MODELS, UNKNOWN_MODEL, Model
from .presets import LOCAL, OPENAI, UNKNOWN
from .target import Target, public_url, resolve

__all__ = [
    "LOCAL",
    "MODELS",
    "OPENAI",
    "UNKNOWN",
    "UNKNOWN_MODEL",
    "Endpoint",
    "Model",
    "Target",
    "public_url",
    "resolve",
]
