"""How the texts of a call are put to the model, by what they are for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import msgspec

from .errors import ConfigurationError
from .models import Model, Role, find_role
from .plan.chunker import Chunker

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Voice:
    """How texts of one role are put: *chunker* has the prefix, *fields*, a JSON object, go into every request."""

    chunker: Chunker
    fields: bytes

    @property
    def key(self) -> tuple[str, bytes]:
        """What tells it from others of the same model."""
        return self.chunker.prefix, self.fields


class Roles:
    """
    The roles that *model* has. *own* is that of texts of which nobody says another.

    Raises :class:`ConfigurationError` if it does not have that one, or *extra_body* has its fields already.
    """

    def __init__(
        self, model: Model, *, called: str, own: str | None, chunker: Chunker, extra_body: Mapping[str, object]
    ) -> None:
        self._model = model
        self._called = called
        self._plain = chunker
        self._extra_body = extra_body
        self._voices: dict[str | None, Voice] = {}
        self.own = own
        self.own_role = self.find(own)
        self.voice = self.voice_of(own)

    @property
    def of_one(self) -> str | None:
        """The role of a single text: where the others are documents, that is a query."""
        has_both = self.own == "document" and "query" in (self._model.roles or ("query",))
        return "query" if has_both else self.own

    @property
    def room(self) -> int:
        """The most bytes that fields of a role take in a request."""
        return max((len(_fields(role)) for role in (self._model.roles or {}).values()), default=0)

    def find(self, name: str | None) -> Role:
        """How the role called *name* is put."""
        role = find_role(self._model, name, called=self._called)
        twice = role.fields.keys() & self._extra_body.keys()
        if twice:
            raise ConfigurationError(f"role: {name!r} is said by the field {min(twice)!r}, which extra_body has too")
        return role

    def voice_of(self, name: str | None) -> Voice:
        """How texts of the role called *name* are put; ``None`` is the role of this embedder."""
        name = self.own if name is None else name
        if not isinstance(name, str | None) or name not in self._voices:
            role = self.find(name)
            self._voices[name] = Voice(replace(self._plain, prefix=role.prefix), _fields(role))
        return self._voices[name]


def _fields(role: Role) -> bytes:
    """The fields of *role* as a JSON object; nothing, if there are none."""
    try:
        return _encode(dict(role.fields)) if role.fields else b""
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"role: its fields are not what JSON can carry: {error}") from error
