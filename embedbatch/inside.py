"""What an embedder is made of, for the rooms above that ask or plan with its means."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .dispatch.router import Router
    from .plan.chunker import Chunker
    from .roles import Roles
    from .settings import Limits
    from .store import Store
    from .wire.shape import Shape


class Inside(NamedTuple):
    """The parts of an embedder that a check, a plan and a job look at. Nothing of it is promised to others."""

    chunker: Chunker
    router: Router
    roles: Roles
    shape: Shape
    limits: Limits
    store: Store  # of texts in the embedder's own role
