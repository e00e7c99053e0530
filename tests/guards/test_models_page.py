"""The table of models in the documentation is the one in the code."""

from __future__ import annotations

from pathlib import Path

from embedbatch.models import MODELS, Model
from embedbatch.prices import PRICES

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
HEADER = ["| model | dimensions | shorter | tokens | roles | price |", "|---|---|---|---|---|---|"]


def roles_of(model: Model) -> str:
    """The roles that make a difference, and how they are told."""
    if not model.roles:
        return "–" if model.roles is not None else "?"
    names = ", ".join(model.roles)
    fields = {field for role in model.roles.values() for field in role.fields}
    return f"`{min(fields)}`: {names}" if fields else f"prefix: {names}"


def price_of(name: str) -> str:
    """What it costs where, and when that was so."""
    prices = {(price.usd_per_million, price.as_of) for (_, model), price in PRICES.items() if model == name}
    return " or ".join(f"{usd:g}, {as_of}" if as_of else "free" for usd, as_of in sorted(prices)) or "–"


def row_of(name: str, model: Model) -> str:
    """The row of one model."""
    size = f"{model.dimensions:,}" + (f" to {model.max_dimensions:,}" if model.max_dimensions else "")
    shorter = {True: "yes", False: "no", None: "?"}[model.matryoshka]
    cells = (f"[{name}]({model.source})", size, shorter, f"{model.max_input_tokens:,}", roles_of(model), price_of(name))
    return f"| {' | '.join(cells)} |"


def test_the_table_of_models_is_that_of_the_code() -> None:
    """
    Every model is there with what is known of it, in the order of the code, and nothing else.
    """
    expected = "\n".join([*HEADER, *(row_of(name, model) for name, model in MODELS.items())])

    assert PAGE.read_text(encoding="utf-8").partition(HEADER[0])[2] == expected.removeprefix(HEADER[0]) + "\n", expected
