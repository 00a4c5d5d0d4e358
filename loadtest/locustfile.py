"""Load with Locust: live streams at the pace of speech, and files.

    locust -u 20 --headless -f loadtest/locustfile.py

`LiveStream` is what comes without a name; others are named: `FileUpload`, `OpenAIFile`,
`DeepgramStream`. See docs/loadtest.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

from locust import events

# Locust only knows the folder in which it was started.
sys.path.insert(0, str(Path(__file__).parent.parent))

from loadtest.events import install
from loadtest.users import DeepgramStream, FileUpload, LiveStream, OpenAIFile

__all__ = ["DeepgramStream", "FileUpload", "LiveStream", "OpenAIFile"]

install(events)
