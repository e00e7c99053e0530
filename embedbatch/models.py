"""
What is known of embedding models: sizes, limits, tokenizers, roles. Facts with their sources, no behaviour.

They are those of the model, wherever it is served. What it costs is a fact of who serves it: see ``prices``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from .errors import ConfigurationError

__all__ = ["Model", "Role"]


@dataclass(frozen=True, kw_only=True)
class Role:
    """
    How a model is told what a text is for: a *prefix* that goes before the text, or *fields* of the request's body.

    ``Role(prefix="query: ")``, ``Role(fields={"input_type": "query"})``. ``Role()`` is a role that needs neither.
    """

    prefix: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.prefix, str):
            raise ConfigurationError(f"prefix: expected a text, got {self.prefix!r}")
        try:
            self.prefix.encode()
        except UnicodeEncodeError as error:
            raise ConfigurationError(f"prefix: {self.prefix!r} is no text that UTF-8 can carry: {error}") from error
        if not isinstance(self.fields, Mapping) or not all(isinstance(name, str) for name in self.fields):
            raise ConfigurationError(f"fields: expected names and values, got {self.fields!r}")
        taken = {"model", "input", "dimensions", "encoding_format", "user"} & self.fields.keys()
        if taken:
            raise ConfigurationError(f"fields: {min(taken)!r} is what embedbatch fills in")


@dataclass(frozen=True, kw_only=True)
class Model:
    """
    What is known of a model.

    Its vectors have *dimensions* numbers, ``None`` if that is not known; up to *max_dimensions*, where more can be
    asked for. *takes_dimensions* tells whether a server that knows it takes ``dimensions``, *matryoshka* whether the
    first numbers of a vector are a good vector by themselves; ``None`` is not known.

    It takes at most *max_input_tokens* tokens of its *tokenizer*: ``"cl100k_base"``, or the path of a
    ``tokenizer.json``. The server adds *special_tokens* to every input, which count.

    *roles* say how it is told what a text is for, by name: ``"query"`` and ``"document"``, and others it has. It is
    empty for a model that makes no difference, and ``None`` where that is not known.
    """

    dimensions: int | None = None
    max_dimensions: int | None = None
    max_input_tokens: int = 8_192
    tokenizer: str | None = None
    special_tokens: int = 0
    takes_dimensions: bool = True
    matryoshka: bool | None = None
    roles: Mapping[str, Role] | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        for name, least in (("dimensions", 1), ("max_dimensions", 1), ("max_input_tokens", 1), ("special_tokens", 0)):
            value = getattr(self, name)
            if value is None and name in ("dimensions", "max_dimensions"):
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigurationError(f"{name}: expected an int of at least {least}, got {value!r}")
        if self.roles is not None and not (
            isinstance(self.roles, Mapping)
            and all(isinstance(name, str) and isinstance(role, Role) for name, role in self.roles.items())
        ):
            raise ConfigurationError(f"roles: expected names and Roles, got {self.roles!r}")


def find_role(model: Model, name: str | None, *, called: str) -> Role:
    """
    How *model*, which is *called* something, is told that a text has the role *name*; ``None`` is no role.

    Raises :class:`ConfigurationError` for a role that it does not have, or is not known to have.
    """
    if name is None:
        return _PLAIN
    if not isinstance(name, str):
        raise ConfigurationError(f"role: expected a name, got {name!r}")
    if model.roles is None:
        raise ConfigurationError(
            f"role: the roles of {called} are not known. Say what goes before the text, or into the request: "
            f'model_info=Model(roles={{{name!r}: Role(prefix="…")}}), or Role(fields={{…}})'
        )
    roles = model.roles or _SYMMETRIC
    if name not in roles:
        raise ConfigurationError(f"role: {called} has {', '.join(map(repr, roles))}; got {name!r}")
    return roles[name]


def known_model(name: str) -> Model | None:
    """What is known of the model called *name*, in whatever capitals; ``None`` if nothing is."""
    key = name.lower().removesuffix(":latest")
    return MODELS.get(name) or _BY_NAME.get(_ALSO_CALLED.get(key, key))


_PLAIN = Role()
_SYMMETRIC = {"query": _PLAIN, "document": _PLAIN}
_NONE: Mapping[str, Role] = {}


def _prefixes(query: str, document: str = "", **others: str) -> Mapping[str, Role]:
    return {name: Role(prefix=prefix) for name, prefix in {"query": query, "document": document, **others}.items()}


def _values(field: str, query: str, document: str, *others: str) -> Mapping[str, Role]:
    """Roles that are values of one *field*; the *others* are called what their values are."""
    values = {"query": query, "document": document, **{value: value for value in others}}
    return {name: Role(fields={field: value}) for name, value in values.items()}


def _bert(dimensions: int, max_input_tokens: int, source: str, **more: Any) -> Model:
    """An open model that adds two tokens to an input, and is not made to be cut short, unless *more* says so."""
    facts: dict[str, Any] = {"special_tokens": 2, "matryoshka": False, "roles": _NONE, **more}
    return Model(
        dimensions=dimensions,
        max_input_tokens=max_input_tokens,
        takes_dimensions=bool(facts["matryoshka"]),
        source=source,
        **facts,
    )


_E5 = _prefixes("query: ", "passage: ")
_SEARCHING = _prefixes("Represent this sentence for searching relevant passages: ")
_NOMIC = _prefixes("search_query: ", "search_document: ", classification="classification: ", clustering="clustering: ")
_NOMIC_API = _values("task_type", "search_query", "search_document", "classification", "clustering")
_INSTRUCT = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
_GEMMA = _prefixes(  # and Gemini's second
    "task: search result | query: ",
    "title: none | text: ",
    classification="task: classification | query: ",
    clustering="task: clustering | query: ",
    similarity="task: sentence similarity | query: ",
)
_VOYAGE = _values("input_type", "query", "document")
_COHERE = _values("input_type", "search_query", "search_document", "classification", "clustering")
_NVIDIA = _values("input_type", "query", "passage")
_JINA = _values("task", "retrieval.query", "retrieval.passage", "classification", "separation", "text-matching")

_OPENAI = "https://developers.openai.com/api/docs/models"  # for the tokenizers: tiktoken/model.py
_GOOGLE = "https://ai.google.dev/gemini-api/docs/models/gemini-embedding-001"
_GOOGLE_2 = "https://docs.cloud.google.com/vertex-ai/generative-ai/docs/models/gemini/embedding-2"
_VOYAGE_DOCS = "https://docs.voyageai.com/embeddings"
_MISTRAL_DOCS = "https://docs.mistral.ai/capabilities/embeddings/text_embeddings"
_COHERE_DOCS = "https://docs.cohere.com/docs/embeddings"
_JINA_DOCS = "https://qdrant.tech/documentation/embeddings/jina-embeddings"
_ALIBABA = "https://www.alibabacloud.com/help/en/model-studio/text-embedding-synchronous-api"
_NIM = "https://docs.api.nvidia.com/nim/reference/nvidia-llama-3_2-nv-embedqa-1b-v2"
_NIM_2 = "https://build.nvidia.com/nvidia/llama-nemotron-embed-1b-v2/modelcard"
_NIM_USE = "https://docs.nvidia.com/nim/nemo-retriever/text-embedding/2.0.0/use-the-api-openai.html"
_NOMIC_DOCS = "https://huggingface.co/nomic-ai/nomic-embed-text-v1.5"  # of the API as well
_OLLAMA = "https://ollama.com/library/"
_WORDLLAMA = "https://pypi.org/project/wordllama/"
# Sizes, limits and prompts of open models in one place.
_MTEB = "https://github.com/embeddings-benchmark/mteb/blob/a905523d0/mteb/models/model_implementations/"


def _card(name: str) -> str:
    return "https://huggingface.co/" + name


def _voyage(dimensions: int = 1_024, max_input_tokens: int = 32_000, *, sizes: bool = True) -> Model:
    return Model(
        dimensions=dimensions,
        max_dimensions=2_048 if sizes else None,
        max_input_tokens=max_input_tokens,
        takes_dimensions=sizes,
        matryoshka=sizes,
        roles=_VOYAGE,
        source=_VOYAGE_DOCS,
    )


def _openai(dimensions: int, *, sizes: bool = True) -> Model:
    return Model(
        dimensions=dimensions,
        tokenizer="cl100k_base",
        takes_dimensions=sizes,
        matryoshka=sizes,
        roles=_NONE,
        source=_OPENAI,
    )


def _cohere(dimensions: int, max_input_tokens: int = 512, *, sizes: bool = False) -> Model:
    return Model(
        dimensions=dimensions,
        max_input_tokens=max_input_tokens,
        takes_dimensions=sizes,
        matryoshka=sizes,
        roles=_COHERE,
        source=_COHERE_DOCS,
    )


def _qwen(dimensions: int) -> Model:
    roles = _prefixes(_INSTRUCT)
    source = _MTEB + "qwen3_models.py"
    return _bert(dimensions, 32_768, source, special_tokens=1, matryoshka=True, roles=roles)


def _arctic(dimensions: int, max_input_tokens: int = 512, **more: Any) -> Model:
    return _bert(dimensions, max_input_tokens, _MTEB + "arctic_models.py", **{"roles": _SEARCHING, **more})


def _e5(name: str, dimensions: int) -> Model:
    return _bert(dimensions, 512, _card("intfloat/" + name), roles=_E5)


def _bge(name: str, dimensions: int) -> Model:
    return _bert(dimensions, 512, _card("BAAI/" + name), roles=_SEARCHING)


_ARCTIC_2: dict[str, Any] = {"matryoshka": True, "roles": _prefixes("query: ")}

MODELS: Mapping[str, Model] = MappingProxyType(
    {
        "text-embedding-3-small": _openai(1_536),
        "text-embedding-3-large": _openai(3_072),
        "text-embedding-ada-002": _openai(1_536, sizes=False),
        "gemini-embedding-001": Model(dimensions=3_072, max_input_tokens=2_048, matryoshka=True, source=_GOOGLE),
        "gemini-embedding-2": Model(dimensions=3_072, matryoshka=True, roles=_GEMMA, source=_GOOGLE_2),
        "voyage-4-large": _voyage(),
        "voyage-4": _voyage(),
        "voyage-4-lite": _voyage(),
        "voyage-3-large": _voyage(),
        "voyage-3.5": _voyage(),
        "voyage-3.5-lite": _voyage(),
        "voyage-code-3": _voyage(),
        "voyage-finance-2": _voyage(sizes=False),
        "voyage-law-2": _voyage(max_input_tokens=16_000, sizes=False),
        "mistral-embed": Model(dimensions=1_024, takes_dimensions=False, roles=_NONE, source=_MISTRAL_DOCS),
        "codestral-embed": Model(
            dimensions=1_536, max_dimensions=3_072, matryoshka=True, roles=_NONE, source=_MISTRAL_DOCS
        ),
        "embed-v4.0": _cohere(1_536, 128_000, sizes=True),
        "embed-english-v3.0": _cohere(1_024),
        "embed-multilingual-v3.0": _cohere(1_024),
        "embed-english-light-v3.0": _cohere(384),
        "embed-multilingual-light-v3.0": _cohere(384),
        "jina-embeddings-v3": Model(dimensions=1_024, matryoshka=True, roles=_JINA, source=_JINA_DOCS),
        "jina-embeddings-v2-base-en": Model(
            dimensions=768, takes_dimensions=False, matryoshka=False, roles=_NONE, source=_JINA_DOCS
        ),
        "text-embedding-v4": Model(dimensions=1_024, max_dimensions=2_048, matryoshka=True, source=_ALIBABA),
        "text-embedding-v3": Model(dimensions=1_024, matryoshka=True, source=_ALIBABA),
        "nvidia/llama-3.2-nv-embedqa-1b-v2": Model(dimensions=2_048, matryoshka=True, roles=_NVIDIA, source=_NIM),
        "nvidia/llama-nemotron-embed-1b-v2": Model(dimensions=2_048, matryoshka=True, roles=_NVIDIA, source=_NIM_2),
        "nvidia/nv-embedqa-e5-v5": Model(
            dimensions=1_024,
            max_input_tokens=512,
            takes_dimensions=False,
            matryoshka=False,
            roles=_NVIDIA,
            source=_NIM_USE,
        ),
        "Qwen/Qwen3-Embedding-0.6B": _qwen(1_024),
        "Qwen/Qwen3-Embedding-4B": _qwen(2_560),
        "Qwen/Qwen3-Embedding-8B": _qwen(4_096),
        "google/embeddinggemma-300m": _bert(
            768, 2_048, _card("google/embeddinggemma-300m"), matryoshka=True, roles=_GEMMA
        ),
        "nomic-embed-text-v1.5": Model(dimensions=768, matryoshka=True, roles=_NOMIC_API, source=_NOMIC_DOCS),
        "nomic-embed-text": _bert(768, 2_048, _OLLAMA + "nomic-embed-text", matryoshka=True, roles=_NOMIC),
        "nomic-ai/nomic-embed-text-v1": _bert(768, 8_192, _MTEB + "nomic_models.py", roles=_NOMIC),
        "nomic-ai/nomic-embed-text-v1.5": _bert(
            768, 8_192, _card("nomic-ai/nomic-embed-text-v1.5"), matryoshka=True, roles=_NOMIC
        ),
        "nomic-ai/nomic-embed-text-v2-moe": _bert(768, 512, _MTEB + "nomic_models.py", matryoshka=True, roles=_NOMIC),
        "intfloat/e5-small-v2": _e5("e5-small-v2", 384),
        "intfloat/e5-base-v2": _e5("e5-base-v2", 768),
        "intfloat/e5-large-v2": _e5("e5-large-v2", 1_024),
        "intfloat/multilingual-e5-small": _e5("multilingual-e5-small", 384),
        "intfloat/multilingual-e5-base": _e5("multilingual-e5-base", 768),
        "intfloat/multilingual-e5-large": _e5("multilingual-e5-large", 1_024),
        "intfloat/multilingual-e5-large-instruct": _bert(
            1_024, 512, _card("intfloat/multilingual-e5-large-instruct"), roles=_prefixes(_INSTRUCT + " ")
        ),
        "BAAI/bge-small-en-v1.5": _bge("bge-small-en-v1.5", 384),
        "BAAI/bge-base-en-v1.5": _bge("bge-base-en-v1.5", 768),
        "BAAI/bge-large-en-v1.5": _bge("bge-large-en-v1.5", 1_024),
        "BAAI/bge-m3": _bert(1_024, 8_192, _MTEB + "bge_models.py"),
        "mixedbread-ai/mxbai-embed-large-v1": _bert(
            1_024, 512, _MTEB + "mixedbread_ai_models.py", matryoshka=True, roles=_SEARCHING
        ),
        "Snowflake/snowflake-arctic-embed-m": _arctic(768),
        "Snowflake/snowflake-arctic-embed-l": _arctic(1_024),
        "Snowflake/snowflake-arctic-embed-m-v1.5": _arctic(768, matryoshka=True),
        "Snowflake/snowflake-arctic-embed-m-v2.0": _arctic(768, 8_192, **_ARCTIC_2),
        "Snowflake/snowflake-arctic-embed-l-v2.0": _arctic(1_024, 8_192, **_ARCTIC_2),
        "Alibaba-NLP/gte-multilingual-base": _bert(
            768, 8_192, _card("Alibaba-NLP/gte-multilingual-base"), matryoshka=True
        ),
        "sentence-transformers/all-MiniLM-L6-v2": _bert(384, 256, _MTEB + "sentence_transformers_models.py"),
        "sentence-transformers/all-mpnet-base-v2": _bert(768, 384, _MTEB + "sentence_transformers_models.py"),
        "local": Model(dimensions=256, tokenizer="local", matryoshka=True, roles=_NONE, source=_WORDLLAMA),
    }
)
"""What is known, by the name that the vendor's API, or Hugging Face, gives the model."""

_BY_NAME = {name.lower(): model for name, model in MODELS.items() if name != "local"}

# Names of the same models at gateways, in LM Studio and in Ollama's library.
_ALSO_CALLED = {
    **{f"openai/{name}": name for name in MODELS if name.startswith(("text-embedding-3", "text-embedding-ada"))},
    "text-embedding-nomic-embed-text-v1.5": "nomic-ai/nomic-embed-text-v1.5",
    "mxbai-embed-large": "mixedbread-ai/mxbai-embed-large-v1",
    "bge-m3": "baai/bge-m3",
    "embeddinggemma": "google/embeddinggemma-300m",
    "snowflake-arctic-embed2": "snowflake/snowflake-arctic-embed-l-v2.0",
    "qwen3-embedding:0.6b": "qwen/qwen3-embedding-0.6b",
    "qwen3-embedding:4b": "qwen/qwen3-embedding-4b",
    "qwen3-embedding:8b": "qwen/qwen3-embedding-8b",
    "all-minilm": "sentence-transformers/all-minilm-l6-v2",
}
UNKNOWN_MODEL = Model()
