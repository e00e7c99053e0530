"""How a command ends: an exit status, and one line that says why."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

from ..errors import DestinationError, EmbedbatchError, JournalError, RunInterruptedError, RunStoppedError

DOCUMENTS_FAILED = 1
CANNOT_WORK = 2  # as for a wrong flag: settings, keys, sources and destinations
STOPPED = 3
INTERRUPTED = 130  # 128 + SIGINT, as shells have it


@contextmanager
def outcome(*, resumes: bool = False) -> Iterator[None]:
    """
    A block whose errors end the program, each with its status and a line on stderr instead of a traceback.

    *resumes* tells that the same command would go on where it was interrupted.
    """
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            yield
    except KeyboardInterrupt:
        _fail("interrupted" + "; the same command goes on where it was" * resumes, INTERRUPTED)
    except RunStoppedError as error:
        _fail(_with_notes(error), INTERRUPTED if isinstance(error, RunInterruptedError) else STOPPED)
    except (DestinationError, JournalError) as error:
        _fail(_with_notes(error), STOPPED)
    except EmbedbatchError as error:
        _fail(_with_notes(error), CANNOT_WORK)
    except OSError as error:
        _fail(str(error), STOPPED)


def _with_notes(error: EmbedbatchError) -> str:
    said = [str(error), *getattr(error, "__notes__", [])]
    return ". ".join(sentence.removesuffix(".") for sentence in said) + "." * (len(said) > 1)


def _fail(reason: str, status: int) -> NoReturn:
    print(f"embedbatch: {reason}", file=sys.stderr)
    raise typer.Exit(status) from None


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"embedbatch: warning: {message}", file=sys.stderr)
