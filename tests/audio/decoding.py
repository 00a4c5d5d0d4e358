"""The decoding processes that this one has started."""

from __future__ import annotations

from contextlib import suppress
from threading import Event, Thread

import psutil

from whisper_serve.audio import isolation


def processes() -> list[psutil.Process]:
    children = psutil.Process().children()
    return [child for child in children if isolation.PROGRAM in child.cmdline()]


class Peak:
    """The most memory that any decoding process has had meanwhile."""

    def __init__(self) -> None:
        self.bytes = 0
        self._over = Event()
        self._watch = Thread(target=self._look)

    def __enter__(self) -> Peak:
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watch.join()

    def _look(self) -> None:
        while not self._over.wait(0.01):
            with suppress(psutil.Error):  # it has just ended
                self.bytes = max([self.bytes, *(p.memory_info().rss for p in processes())])
