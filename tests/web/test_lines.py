from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterator

import pytest

from tests.web.browser import Modules, loaded_modules
from whisper_serve.text.lines import columns_of

pytestmark = [pytest.mark.browser, pytest.mark.timeout(60)]

# Unicode 16 made a mark of it that takes no room.
MOVED = {"1171e"}

COLUMNS = "(module, chars) => Array.from(chars, (char) => module.columnsOf(char))"


@pytest.fixture(scope="module")
def modules() -> Iterator[Modules]:
    with loaded_modules() as modules:
        yield modules


def test_every_character_is_as_wide_as_the_service_finds_it(modules: Modules) -> None:
    """Those that this Python knows; a browser may know more."""
    unknown = {"Cn", "Cs", "Co"}
    every = map(chr, range(sys.maxunicode + 1))
    chars = [char for char in every if unicodedata.category(char) not in unknown]
    columns = modules.call("lines.js", COLUMNS, "".join(chars))
    wrong = {
        f"{ord(char):x}"
        for char, found in zip(chars, columns, strict=True)
        if found != columns_of(char)
    }
    assert wrong <= MOVED
