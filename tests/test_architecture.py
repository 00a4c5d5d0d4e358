"""The rules of ARCHITECTURE.md that a machine can check."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "whisper_serve"
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))

WEB = ("fastapi", "starlette", "uvicorn", "websockets")
NETWORKS = ("torch", "whisper", "ctranslate2", "faster_whisper")
WAITING = ("asyncio", "anyio", "concurrent", "selectors", "socket", "threading", "time")
OUTSIDE = ("ray", "httpx", *WEB, *NETWORKS)

# What each part may know of this package, and what it may not know of the world.
PARTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "text": (("text", "errors"), (*OUTSIDE, *WAITING)),
    "audio": (("audio", "text", "errors"), (*OUTSIDE, "asyncio", "anyio")),
    "streaming": (("streaming", "audio", "text", "errors"), (*OUTSIDE, *WAITING)),
    "engines": (("engines", "audio", "text", "errors", "observability"), ("ray", *WEB)),
    "observability": (("observability", "config", "errors", "__version__"), OUTSIDE),
    "listening": (("audio", "text", "engines.base", "ports", "errors"), OUTSIDE),
    "pipeline": (
        (
            *("audio", "text", "engines.base", "listening", "ports"),
            *("account", "config", "observability", "errors"),
        ),
        OUTSIDE,
    ),
    "keys": (("keys", "config", "config_file", "errors"), (*OUTSIDE, "asyncio", "anyio")),
    "ports": (("text", "engines.base", "errors"), OUTSIDE),
    "storage": (("storage", "config", "errors"), OUTSIDE),
    "jobs": (
        (
            *("jobs", "storage", "pipeline", "text", "deadline"),
            *("config", "observability", "errors"),
        ),
        ("ray", *WEB, *NETWORKS),
    ),
    "deadline": ((), OUTSIDE),
    "account": (("text", "engines.base", "observability", "ports", "errors"), OUTSIDE),
    "api": (
        (
            *("api", "audio", "text", "streaming", "engines.base", "pipeline", "ports"),
            *("account", "config", "deadline", "jobs", "keys", "observability", "errors"),
            "__version__",
        ),
        ("ray", *NETWORKS),
    ),
    "client": (
        ("client", "audio", "text", "streaming.messages", "errors"),
        ("ray", "fastapi", "starlette", "uvicorn", "onnxruntime", *NETWORKS),
    ),
    "online": (
        (
            *("audio", "text", "streaming", "engines.base"),
            *("serving.global_queue", "serving.workers", "errors"),
        ),
        OUTSIDE,
    ),
}
SAYS_NOTHING = {"utils", "util", "helpers", "helper", "common", "manager", "misc", "base_utils"}
MAX_FUNCTION_LINES = 60


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def name_of(path: Path) -> str:
    """The dotted name of a module inside the package; that of a folder is its own."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> Iterator[str]:
    """Every module that is imported anywhere in the file, nested and for types only too."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            module = node.module or ""
            yield from (f"{module}.{alias.name}" for alias in node.names)


def within(name: str, parents: tuple[str, ...]) -> bool:
    return any(name == parent or name.startswith(f"{parent}.") for parent in parents)


def modules_of(part: str) -> list[Path]:
    return [path for path in MODULES if within(name_of(path), (part,))]


def test_there_is_something_to_check() -> None:
    assert len(MODULES) > 40
    assert "ray.serve" in set(imports_of(PACKAGE / "serving" / "app.py"))


@pytest.mark.parametrize("part", PARTS)
def test_a_part_knows_what_lies_below_it_only(part: str) -> None:
    known, _ = PARTS[part]
    ours = [
        (name_of(path), name.removeprefix("whisper_serve."))
        for path in modules_of(part)
        for name in imports_of(path)
        if within(name, ("whisper_serve",))
    ]
    assert [(module, name) for module, name in ours if not within(name, known)] == []


@pytest.mark.parametrize("part", PARTS)
def test_a_part_knows_nothing_of_the_outside_that_is_not_its_business(part: str) -> None:
    _, strange = PARTS[part]
    imported = [(name_of(path), name) for path in modules_of(part) for name in imports_of(path)]
    assert [(module, name) for module, name in imported if within(name, strange)] == []


def test_only_serving_knows_ray() -> None:
    importers = {
        name_of(path)
        for path in MODULES
        if any(within(name, ("ray",)) for name in imports_of(path))
    }
    assert importers
    assert all(within(name, ("serving",)) for name in importers)


def test_every_part_is_under_a_rule_or_joins_the_others() -> None:
    parts = {name_of(path).split(".")[0] for path in MODULES}
    joins = {"__init__", "serving", "cli", "config", "config_file", "errors", "sample", "web", ""}
    assert parts <= set(PARTS) | joins


def test_nothing_is_imported_by_name_at_run_time() -> None:
    hidden = [
        name_of(path)
        for path in MODULES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in {"__import__", "import_module", "importlib.import_module"}
    ]
    assert hidden == []


@pytest.mark.parametrize(
    ("module", "strange"),
    [
        ("whisper_serve.api.app", ("torch", "ray", "ctranslate2", "whisper")),
        ("whisper_serve.pipeline", ("torch", "ray", "ctranslate2", "whisper", "fastapi")),
        ("whisper_serve.cli", ("torch", "ray", "ctranslate2", "whisper", "fastapi")),
        ("whisper_serve.online", ("torch", "ctranslate2", "whisper")),
        ("whisper_serve.client", ("torch", "ray", "ctranslate2", "whisper", "fastapi")),
    ],
)
def test_the_front_loads_no_network(module: str, strange: tuple[str, ...]) -> None:
    program = f"import sys, {module}; print([m for m in {strange!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=PACKAGE.parent,
    )
    assert done.stdout == "[]\n"


# Habits


def test_every_module_s_name_says_something() -> None:
    names = {part for path in MODULES for part in name_of(path).split(".")}
    assert names & SAYS_NOTHING == set()


def test_every_module_says_what_it_is() -> None:
    silent = [name_of(path) for path in MODULES if not ast.get_docstring(tree_of(path))]
    assert silent == []


def test_only_the_command_and_the_server_print() -> None:
    printers = {
        name_of(path)
        for path in MODULES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Name) and node.id == "print"
    }
    assert printers <= {"cli", "serving.server", "client.cli", "client.jobs_cli", "keys.cli"}


def test_no_function_is_long() -> None:
    long = [
        f"{name_of(path)}.{node.name}"
        for path in MODULES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= MAX_FUNCTION_LINES
    ]
    assert long == []
