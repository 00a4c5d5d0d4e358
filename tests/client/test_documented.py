"""`docs/client.md` is about this client."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

from whisper_serve import client, errors
from whisper_serve.client import AsyncClient, AsyncJobs, Client, Job, Jobs

PAGE = (Path(__file__).parents[2] / "docs" / "client.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def public(of: type) -> list[str]:
    return [name for name in vars(of) if not name.startswith("_")]


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_are_python_and_import_what_there_is(example: str) -> None:
    code = compile(example, "client.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST)
    assert isinstance(code, ast.Module)
    for node in ast.walk(code):
        if isinstance(node, ast.ImportFrom):
            assert node.module == "whisper_serve.client"
            assert {alias.name for alias in node.names} <= set(client.__all__)


@pytest.mark.parametrize("option", list(inspect.signature(AsyncClient).parameters)[1:])
def test_every_option_is_documented(option: str) -> None:
    assert f"| `{option}` |" in PAGE


@pytest.mark.parametrize("name", [*public(AsyncJobs), *Job.__dataclass_fields__, "is_over"])
def test_everything_about_jobs_is_documented(name: str) -> None:
    assert re.search(rf"`{name}[`(]", PAGE)


def test_the_client_without_await_has_all_that_the_other_has() -> None:
    assert set(public(Jobs)) == set(public(AsyncJobs))
    assert set(public(Client)) - {"close"} == set(public(AsyncClient)) - {"aclose"}


@pytest.mark.parametrize("error", errors.ClientError.__subclasses__())
def test_every_error_of_the_client_is_documented(error: type[errors.ClientError]) -> None:
    assert f"`{error.__name__}`" in PAGE
