"""A Dockerfile, read as its stages of instructions."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple


class Instruction(NamedTuple):
    name: str
    text: str

    @property
    def words(self) -> list[str]:
        """In exec form, which no shell reads. Raises `ValueError` for the other form."""
        words: list[str] = json.loads(self.text)
        return words


@dataclass
class Stage:
    base: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, name: str) -> list[Instruction]:
        return [each for each in self.instructions if each.name == name]

    def only(self, name: str) -> Instruction:
        [found] = self.all(name)
        return found

    @property
    def environment(self) -> dict[str, str]:
        pairs = (each.text.split() for each in self.all("ENV"))
        return dict(pair.split("=", 1) for several in pairs for pair in several)

    @property
    def packages(self) -> set[str]:
        """What it installs of the distribution."""
        text = " ".join(each.text for each in self.all("RUN"))
        installed = re.findall(r"apt-get install -y --no-install-recommends ([\w. -]+?) &&", text)
        return {name for names in installed for name in names.split()}


def instructions(path: Path) -> list[Instruction]:
    lines = path.read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    joined = re.sub(r"\s*\\\n\s*", " ", text).splitlines()
    return [Instruction(*line.split(maxsplit=1)) for line in joined if line.strip()]


def stages(path: Path) -> list[Stage]:
    found: list[Stage] = []
    for each in instructions(path):
        if each.name == "FROM":
            base, _, name = each.text.partition(" AS ")
            found.append(Stage(base, name))
        elif found:
            found[-1].instructions.append(each)
    return found


def defaults(path: Path) -> dict[str, str]:
    """The arguments of a build, as they are when nobody gives them."""
    given = [each.text for each in instructions(path) if each.name == "ARG" and "=" in each.text]
    return {name: value.strip('"') for name, value in (text.split("=", 1) for text in given)}
