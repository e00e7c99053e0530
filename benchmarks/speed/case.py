"""One measurement: what is run in a process of its own, and what came out. Both are JSON, for either environment."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Case:
    """
    What one process measures. *task* is a name in :mod:`worker`, *client* one in :mod:`clients`.

    A call has *texts* texts, *batch* in a request, *in_flight* requests at a time; there are *repeat* calls, after one
    of *warm_up* texts that is not timed. *delays* is the seed of a schedule of server delays. *settings* are the
    client's or the task's own. With *pinned* the client has one core and the server another.
    """

    task: str
    client: str
    texts: int = 0
    dimensions: int = 1_536
    batch: int = 256
    in_flight: int = 32
    repeat: int = 1
    warm_up: int = 0
    delays: int | None = None
    pinned: bool = True
    settings: tuple[tuple[str, Any], ...] = ()

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Case:
        given = json.loads(text)
        given["settings"] = tuple((name, value) for name, value in given["settings"])
        return cls(**given)

    def __str__(self) -> str:
        shown = [f"{field.name}={getattr(self, field.name)!r}" for field in fields(self) if self._is_set(field.name)]
        return f"{self.task} {self.client} {' '.join(shown)}".rstrip()

    def _is_set(self, name: str) -> bool:
        defaults = {field.name: field.default for field in fields(self)}
        return name not in ("task", "client") and getattr(self, name) != defaults[name]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """
    What one process found. Seconds, bytes; *cpu* is user and system time of the client's process in the timed section.

    *peak* and *baseline* are resident memory: the most during the timed section, and what there was before. *output*
    is the size of the vectors. *server* is what the server counted. *extra* holds what only one part reads.
    """

    seconds: float
    cpu: float
    vectors: int = 0
    peak: int = 0
    baseline: int = 0
    output: int = 0
    server: dict[str, Any]
    versions: dict[str, str]
    extra: dict[str, Any]

    @property
    def rate(self) -> float:
        """Vectors per second."""
        return self.vectors / self.seconds

    @property
    def cpu_per_vector(self) -> float:
        """Microseconds of the client's CPU time."""
        return self.cpu / self.vectors * 1e6
