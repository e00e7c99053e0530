"""What one server accepts, and what is known about models."""

from .choice import as_mapping, choose, from_mapping, preset, read_endpoint
from .endpoint import ApiKey, EncodingFormat, Endpoint, Meaning
from .models import MODELS, UNKNOWN_MODEL, Model
from .presets import LOCAL, OPENAI, PRESETS, UNKNOWN
from .target import Target, public_url, resolve

__all__ = [
    "LOCAL",
    "MODELS",
    "OPENAI",
    "PRESETS",
    "UNKNOWN",
    "UNKNOWN_MODEL",
    "ApiKey",
    "EncodingFormat",
    "Endpoint",
    "Meaning",
    "Model",
    "Target",
    "as_mapping",
    "choose",
    "from_mapping",
    "preset",
    "public_url",
    "read_endpoint",
    "resolve",
]
