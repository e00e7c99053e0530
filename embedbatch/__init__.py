"""
Texts in, one float32 vector each, in order — as fast as the endpoint and its rate limits allow.

The flow, and where it lives:

    read → plan (count, chunk, pack) ┃→ N workers (wait for capacity → send → judge → decode) → store → assemble

    embedder, blocking     the doors: Embedder, and embed() for scripts
    singles, rounds        single calls that share a run
    pipeline               the flow
    plan                   documents → batches
    wire                   batches ↔ bytes: request, reply, fault
    dispatch               when to send, how many at once, how long to wait; the sending
    assemble               replies → results, in the original order
    jobs                   a corpus in files, vectors out to files
    sweep                  which batch size and how many in flight serve an endpoint best
    check                  what an endpoint accepts, by asking it
    local                  the embedded model
"""

from .blocking import embed
from .dispatch.limiter import Limiter
from .embedder import Embedder
from .endpoints import Endpoint
from .errors import (
    AttemptTimeoutError,
    AuthenticationError,
    ConfigurationError,
    ConnectionFailedError,
    ConnectionLostError,
    DestinationError,
    DimensionsError,
    EmbedbatchError,
    EmptyInputError,
    FailedDocumentsError,
    InputError,
    InputTooLongError,
    InvalidInputError,
    InvalidReplyError,
    InvalidTextError,
    JournalError,
    MalformedReplyError,
    ModelNotFoundError,
    NotAttemptedError,
    QuotaExhaustedError,
    RateLimitedError,
    RequestError,
    RequestRefusedError,
    RunError,
    RunInterruptedError,
    RunStoppedError,
    ServerError,
    SourceError,
    SpendLimitError,
    TokenArrayError,
    VectorRangeError,
)
from .events import (
    AttemptFailed,
    BatchAnswered,
    BatchSplit,
    CapLearned,
    DocumentCut,
    DocumentFailed,
    DocumentRepaired,
    DocumentsEmbedded,
    EndpointAway,
    EndpointBack,
    EndpointPaused,
    Event,
    FormLearned,
    InputsShortened,
    RequestHedged,
    RunStopped,
)
from .models import Model, Role
from .plan.tokens import Tokenizer
from .results import Results
from .settings import Limits, Retries
from .stats import Capacity, Stats, Timing
from .store import Store
from .values import Batch, Chunks, Cut, Document, Embedding, Embeddings, Failure, Usage
from .version import VERSION as __version__

__all__ = [
    "AttemptFailed",
    "AttemptTimeoutError",
    "AuthenticationError",
    "Batch",
    "BatchAnswered",
    "BatchSplit",
    "CapLearned",
    "Capacity",
    "Chunks",
    "ConfigurationError",
    "ConnectionFailedError",
    "ConnectionLostError",
    "Cut",
    "DestinationError",
    "DimensionsError",
    "Document",
    "DocumentCut",
    "DocumentFailed",
    "DocumentRepaired",
    "DocumentsEmbedded",
    "EmbedbatchError",
    "Embedder",
    "Embedding",
    "Embeddings",
    "EmptyInputError",
    "Endpoint",
    "EndpointAway",
    "EndpointBack",
    "EndpointPaused",
    "Event",
    "FailedDocumentsError",
    "Failure",
    "FormLearned",
    "InputError",
    "InputTooLongError",
    "InputsShortened",
    "InvalidInputError",
    "InvalidReplyError",
    "InvalidTextError",
    "JournalError",
    "Limiter",
    "Limits",
    "MalformedReplyError",
    "Model",
    "ModelNotFoundError",
    "NotAttemptedError",
    "QuotaExhaustedError",
    "RateLimitedError",
    "RequestError",
    "RequestHedged",
    "RequestRefusedError",
    "Results",
    "Retries",
    "Role",
    "RunError",
    "RunInterruptedError",
    "RunStopped",
    "RunStoppedError",
    "ServerError",
    "SourceError",
    "SpendLimitError",
    "Stats",
    "Store",
    "Timing",
    "TokenArrayError",
    "Tokenizer",
    "Usage",
    "VectorRangeError",
    "__version__",
    "embed",
]
