"""How a live stream goes: what its line in the access log tells of it at its end."""

from __future__ import annotations

from dataclasses import dataclass

from whisper_serve.streaming.messages import Done, Failed, Final, ServerMessage

GONE = "gone"


@dataclass(slots=True)
class Course:
    """`ended`: `done`, `gone` when the client went away before, or the code of the error that
    ended it. `audio_s`: seconds of audio that came over this connection."""

    is_resumed: bool = False
    audio_s: float = 0.0
    windows: int = 0
    finals: int = 0
    ended: str = GONE

    def tell(self, message: ServerMessage) -> None:
        """The client is being sent this."""
        match message:
            case Final():
                self.finals += 1
            case Done():
                self.ended = Done.kind
            case Failed(code=code, fatal=True):
                self.ended = code

    def fields(self) -> dict[str, object]:
        return {
            "audio_s": round(self.audio_s, 3),
            "windows": self.windows,
            "finals": self.finals,
            "ended": self.ended,
            "resumed": self.is_resumed,
        }
