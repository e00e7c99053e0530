"""What one server accepts, and how one is found from what the user says."""

from .choice import as_mapping, choose, from_mapping, preset, read_endpoint
from .endpoint import ApiKey, EncodingFormat, Endpoint, Meaning
from .presets import LOCAL, OPENAI, PRESETS, UNKNOWN
from .target import Target, public_url, resolve

__all__ = [
    "LOCAL",
    "OPENAI",
    "PRESETS",
    "UNKNOWN",
    "ApiKey",
    "EncodingFormat",
    "Endpoint",
    "Meaning",
    "Target",
    "as_mapping",
    "choose",
    "from_mapping",
    "preset",
    "public_url",
    "read_endpoint",
    "resolve",
]
