"""Which of the known servers is meant: by its name, a file, or the address."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..errors import ConfigurationError
from .endpoint import Endpoint
from .presets import AZURE, AZURE_DEPLOYMENTS, PRESETS, UNKNOWN

_FIELDS = {each.name: each for each in fields(Endpoint) if each.name != "api_key"}  # keys do not belong in files
_TEXTS = ("name", "path", "root", "auth", "input_field", "encoding_field", "source")
_OPTIONAL_TEXTS = ("base_url", "model", "key_variable", "url_variable", "token_auth", "dimensions_field")
_FLAGS = ("needs_key", "token_arrays", "rate_headers")
_MAPPINGS = ("query", "extra_body", "refusals")


def preset(name: str) -> Endpoint:
    """
    The known server of that *name*; ``"llama.cpp"``, ``"llama-cpp"`` and ``"LlamaCpp"`` are the same.

    Raises :class:`ConfigurationError` for a name that is not known.
    """
    found = _BY_NAME.get(_plain(name))
    if found is None:
        known = ", ".join(sorted(PRESETS))
        raise ConfigurationError(f"endpoint: expected an Endpoint or one of {known}; got {name!r}")
    return found


def for_address(base_url: str, endpoint: Endpoint | None = None) -> Endpoint:
    """The server at *base_url*, unless it is known to be *endpoint*; one that nothing is known of otherwise."""
    try:
        address = urlsplit(base_url)
        host = address.hostname or ""
    except (ValueError, AttributeError) as error:
        raise ConfigurationError(f"base_url: expected an http or https address, got {base_url!r}: {error}") from error
    found = endpoint or next((each for each in PRESETS.values() if each.is_at(host)), UNKNOWN)
    return AZURE_DEPLOYMENTS if found is AZURE and "/deployments/" in address.path else found


def from_mapping(mapping: Mapping[str, Any]) -> Endpoint:
    """
    An endpoint from what :func:`as_mapping` gives, such as the content of a JSON file.

    *notes* in it are passed over. Raises :class:`ConfigurationError` for unknown names and wrong types, and for a key:
    those do not belong in files.
    """
    if not isinstance(mapping, Mapping):
        raise ConfigurationError(f"endpoint: expected an object with the fields of an Endpoint, got {mapping!r}")
    mapping = {name: value for name, value in mapping.items() if name != "notes"}
    unknown = sorted(set(mapping) - set(_FIELDS))
    if unknown:
        raise ConfigurationError(f"endpoint: expected fields of Endpoint other than api_key, got {', '.join(unknown)}")
    if "name" not in mapping:
        raise ConfigurationError("endpoint: expected a name, got none")
    for name, value in mapping.items():
        _check(name, value)
    return Endpoint(**{**mapping, "hosts": tuple(mapping.get("hosts", ()))})


def as_mapping(endpoint: Endpoint) -> dict[str, Any]:
    """What differs from an unknown server's, with its name, as JSON can carry it. Never the key."""
    values = {name: getattr(endpoint, name) for name in _FIELDS}
    plain = {name: _default_of(name) for name in _FIELDS}
    changed = {name: value for name, value in values.items() if value != plain[name]}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in changed.items()}


def read_endpoint(path: Path) -> Endpoint:
    """
    The endpoint in a JSON file, such as ``embedbatch check --json`` writes.

    Raises :class:`ConfigurationError` if it cannot be read, or is none.
    """
    try:
        return from_mapping(json.loads(path.read_bytes()))
    except OSError as error:
        raise ConfigurationError(f"endpoint: cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"endpoint: {path}: {error}") from error


def choose(text: str | None) -> Endpoint | None:
    """What the command line says: the name of a known server, or a ``.json`` file with another."""
    if text is None:
        return None
    return read_endpoint(Path(text)) if text.endswith(".json") else preset(text)


def _check(name: str, value: object) -> None:
    if name in _TEXTS:
        fits = isinstance(value, str)
    elif name in _OPTIONAL_TEXTS:
        fits = value is None or isinstance(value, str)
    elif name in _FLAGS:
        fits = isinstance(value, bool)
    elif name in _MAPPINGS:
        fits = isinstance(value, Mapping)
    elif name == "hosts":
        fits = isinstance(value, list | tuple) and all(isinstance(host, str) for host in value)
    elif name == "normalised":
        fits = value is None or isinstance(value, bool)
    else:
        return  # the Endpoint checks it
    if not fits:
        raise ConfigurationError(f"endpoint: {name}: got {value!r}, which is of another kind")


def _default_of(name: str) -> Any:
    each = _FIELDS[name]
    return each.default_factory() if each.default_factory is not MISSING else each.default


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


_BY_NAME = {_plain(name): each for name, each in PRESETS.items()}
