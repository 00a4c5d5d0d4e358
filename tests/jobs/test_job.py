from __future__ import annotations

import time
import uuid

from whisper_serve.jobs.job import new_id


def test_an_id_is_a_uuid_of_version_7() -> None:
    made = uuid.UUID(new_id())
    assert made.version == 7
    assert made.variant == uuid.RFC_4122


def test_ids_differ_and_sort_by_time() -> None:
    assert len({new_id(5.0) for _ in range(1000)}) == 1000
    in_order = [new_id(float(second)) for second in (0, 1, 1.5, 1000, time.time(), 4e9)]
    assert in_order == sorted(in_order)
    assert {len(made) for made in in_order} == {32}
