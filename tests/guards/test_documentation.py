"""The documentation says what is so: its code runs, its links lead somewhere, its tables are those of the code."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pybase64
import pytest
import typer

import embedbatch
import embedbatch.cache
import embedbatch.jobs
import embedbatch.testing
from embedbatch.cli.app import app
from embedbatch.testing import ScriptedServer
from embedbatch.wire.fault import Action, judge

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md")) + [page for page in [ROOT / "README.md"] if page.exists()]
MAX_LINES_OF_A_PAGE = 200
KEY = "the key of the documentation"

FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PRINTED = re.compile(r"# -> (.*)$", re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; *line* is that of its first line of code."""

    page: Path
    line: int
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path, *languages: str) -> list[Block]:
    """The blocks of a page in these languages; all of them, if none is named."""
    text = page.read_text(encoding="utf-8")
    found = [Block(page, text.count("\n", 0, at.start(2)) + 1, at[1], at[2]) for at in FENCED.finditer(text)]
    return [block for block in found if not languages or block.language in languages]


def is_test_file(page: Path) -> bool:
    """True for a page whose blocks are tests: running them means running pytest."""
    return any("def test_" in block.code for block in blocks(page, "python"))


def by_name(pages: list[Path]) -> list[Any]:
    """Pages as parameters of a test."""
    return [pytest.param(page, id=page.relative_to(ROOT).as_posix()) for page in pages]


WITH_CODE = [page for page in PAGES if blocks(page, "python")]


class Loopback(BaseHTTPRequestHandler):
    """OpenAI's side of the wire contract, with the vectors of the scripted server."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        status = 200 if self.headers["authorization"] == f"Bearer {KEY}" else 401
        reply = json.dumps(self.embed(request) if status == 200 else {"error": {"message": "no"}}).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def embed(self, request: dict[str, Any]) -> dict[str, Any]:
        """The body of a good reply."""
        vector_of = ScriptedServer(dimensions=request.get("dimensions") or 1_536).vector_of
        data = [
            {"index": index, "embedding": pybase64.b64encode_as_string(vector_of(text).tobytes())}
            for index, text in enumerate(request["input"])
        ]
        tokens = sum(max(1, len(text) // 4) for text in request["input"])
        return {"data": data, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def endpoint() -> Iterator[None]:
    """A server on loopback, which the environment names as OpenAI's variables do."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Loopback) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        # tests/conftest.py takes both out again.
        os.environ["OPENAI_API_KEY"] = KEY
        os.environ["OPENAI_BASE_URL"] = f"http://127.0.0.1:{server.server_port}/v1"
        yield
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("page", by_name([page for page in WITH_CODE if not is_test_file(page)]))
def test_every_python_block_of_a_page_runs(
    page: Path, endpoint: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    The blocks of a page run in order, in one namespace and one event loop, and print what `# ->` says they do.
    """
    namespace: dict[str, Any] = {"__name__": "__main__"}
    with contextlib.chdir(tmp_path), asyncio.Runner() as loop:
        for block in blocks(page, "python"):
            # Lines before it, so that a traceback shows the line of the page.
            source = "\n" * (block.line - 1) + block.code
            code = compile(source, str(page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            ended = eval(code, namespace)
            if inspect.iscoroutine(ended):
                loop.run(ended)
            assert capsys.readouterr().out.splitlines() == PRINTED.findall(block.code), block


@pytest.mark.slow
@pytest.mark.parametrize("page", by_name([page for page in WITH_CODE if is_test_file(page)]))
def test_a_page_of_tests_is_a_test_file_that_passes(page: Path, tmp_path: Path) -> None:
    """
    The blocks of such a page, put into one file, are tests that pytest runs and that pass, warnings being errors.
    """
    code = "\n\n".join(block.code for block in blocks(page, "python"))
    path = tmp_path / "test_page.py"
    path.write_text(code, encoding="utf-8")

    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "-p", "no:asyncio", path.name],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{code.count('def test_')} passed" in run.stdout


def commands() -> list[Any]:
    """Each command line of embedbatch in a console block, as a parameter of a test."""
    lines = [
        (line.removeprefix("$ embedbatch "), block)
        for page in PAGES
        for block in blocks(page, "console")
        for line in block.code.splitlines()
        if line.startswith("$ embedbatch ")
    ]
    return [pytest.param(line, id=f"{block} {line}") for line, block in lines]


@pytest.mark.parametrize("line", commands())
def test_a_command_that_is_shown_exists_with_its_flags(line: str) -> None:
    """
    The command line parses it: the command, its arguments and its flags are there, and the values have the type.
    """
    name, *arguments = shlex.split(line, comments=True)
    command = typer.main.get_command(app)
    assert name in command.commands  # type: ignore[attr-defined]

    if "--help" not in arguments:
        command.commands[name].make_context(name, arguments)  # type: ignore[attr-defined]


def test_a_block_says_what_it_is() -> None:
    """
    Python runs, console is typed, text is neither; a block that says nothing would not be checked.
    """
    languages = {str(block): block.language for page in PAGES for block in blocks(page)}

    assert {place: it for place, it in languages.items() if it not in ("python", "console", "text")} == {}


def anchors(page: Path) -> set[str]:
    """The anchors of the headings of a page, as GitHub makes them."""
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> Iterator[tuple[str, Path, str]]:
    """Each link of a page into this repository: how it is written, the file, and the anchor."""
    for link in LINK.findall(FENCED.sub("", page.read_text(encoding="utf-8"))):
        if not link.startswith(("http://", "https://")):
            path, _, anchor = link.partition("#")
            yield link, (page.parent / path).resolve() if path else page, anchor


@pytest.mark.parametrize("page", by_name(PAGES))
def test_every_link_leads_somewhere(page: Path) -> None:
    """
    A link to a file names one that exists, and a link to a heading one that is there.
    """
    dead = [
        link
        for link, path, anchor in links(page)
        if not path.exists() or (anchor and path.suffix == ".md" and anchor not in anchors(path))
    ]

    assert not dead


def test_every_page_can_be_found() -> None:
    """
    The first page of the documentation links to every other.
    """
    first = DOCS / "index.md"

    assert {path for _, path, _ in links(first)} >= set(DOCS.rglob("*.md")) - {first}


@pytest.mark.parametrize("page", by_name(PAGES))
def test_a_page_can_be_read_in_one_sitting(page: Path) -> None:
    """
    No page is longer than 200 lines.
    """
    assert len(page.read_text(encoding="utf-8").splitlines()) <= MAX_LINES_OF_A_PAGE


def table(page: Path, *, columns: int) -> list[list[str]]:
    """The rows of all tables of a page with so many columns, without headers, as the texts of their cells."""
    rows = re.findall(r"^\| (.*) \|$", page.read_text(encoding="utf-8"), re.MULTILINE)
    cells = [[cell.strip().strip("`") for cell in row.split(" | ")] for row in rows]
    return [row for row in cells if len(row) == columns]


@pytest.mark.parametrize(
    "module",
    [embedbatch, embedbatch.cache, embedbatch.jobs, embedbatch.testing],
    ids=lambda it: it.__name__,
)
def test_the_reference_lists_what_is_public(module: ModuleType) -> None:
    """
    The names in the first columns of a module's tables are its `__all__`: none missing, none that is not there.
    """
    text = (DOCS / "reference.md").read_text(encoding="utf-8")
    sections = {part.partition("\n")[0]: part for part in text.split("\n## ")}
    listed = re.findall(r"^\| `(\w+)` \| [^|]* \|$", sections[module.__name__], re.MULTILINE)  # tables of two columns

    assert sorted(listed) == sorted(module.__all__)


def test_the_reference_lists_the_arguments_of_an_embedder() -> None:
    """
    The table has every argument, in the order of the signature.
    """
    listed = [name for name, _, _ in table(DOCS / "reference.md", columns=3)]

    assert listed == ["argument", *inspect.signature(embedbatch.Embedder).parameters]


@pytest.mark.parametrize("settings", [embedbatch.Limits, embedbatch.Retries])
def test_the_defaults_of_the_settings_are_told_as_they_are(settings: type[Any]) -> None:
    """
    Every field is in the table of its page, with the default it has.
    """
    rows = table(DOCS / "limits-and-retries.md", columns=3)
    told = {name: default for name, default, _ in rows}

    defaults = {field.name: field.default for field in fields(settings)}
    assert {name: ast.literal_eval(told.get(name, "'missing'")) for name in defaults} == defaults


def test_every_error_is_explained() -> None:
    """
    The page about errors names each of them in its tree, and once more where it is explained.
    """
    text = (DOCS / "errors.md").read_text(encoding="utf-8")
    explained = FENCED.sub("", text)
    bases = {"EmbedbatchError", "InputError", "RequestError", "RunError"}

    for name in embedbatch.errors.__all__:
        assert re.search(rf"(^|─ ){name}\b", text, re.MULTILINE), f"{name} is not in the tree"
        assert name in bases or re.search(rf"^(\| `|### |`){name}\b", explained, re.MULTILINE), name


FAULTS = [row for row in table(DOCS / "explanation" / "faults.md", columns=6) if row[0][:1].isdigit()]


@pytest.mark.parametrize("row", FAULTS, ids=lambda row: f"{row[0]} {row[1]}")
def test_a_fault_is_judged_as_its_row_says(row: list[str]) -> None:
    """
    The action before and after a success, and the error, are what the code decides for this status and code.
    """
    statuses, code, before, after, error, _ = row
    body = json.dumps({"error": {"message": "no", "code": None if code == "–" else code}}).encode()

    for status in map(int, statuses.split(", ")):
        for proven, action in ((False, before), (True, after)):
            fault = judge(status, {}, body, proven=proven)
            assert (fault.action, type(fault.error).__name__) == (Action(action), error)


def test_there_is_something_to_check() -> None:
    """
    The tables and blocks that the tests above are made from are found: a changed form must not make them pass.
    """
    assert len(FAULTS) >= 30
    assert len(commands()) >= 5
    assert sum(len(blocks(page, "python")) for page in PAGES) >= 30
