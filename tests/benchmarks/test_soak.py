from __future__ import annotations

from benchmarks.family import ENGINE, INGRESS, Sample
from benchmarks.soak import Verdict
from benchmarks.traffic import Tally


def seen(kind: str, mib_per_hour: float, *, pid: int = 1, level: float = 100.0) -> list[Sample]:
    """Of ten minutes, every five seconds."""
    return [
        Sample(at, kind, pid, level, level + mib_per_hour * at / 3_600, 10, 20)
        for at in (5.0 * number for number in range(120))
    ]


def test_what_stays_as_it_is_passes() -> None:
    verdict = Verdict(Tally(), seen(ENGINE, 0.0), bound=20.0)
    assert verdict.growing == []
    assert verdict.exit_code == 0


def test_what_grows_faster_than_it_may_fails() -> None:
    verdict = Verdict(Tally(), [*seen(ENGINE, 1.0), *seen(INGRESS, 50.0, pid=2)], bound=20.0)
    assert verdict.growing == [INGRESS]
    assert verdict.exit_code == 1


def test_growth_while_it_warms_up_is_none() -> None:
    first, rest = seen(ENGINE, 5_000.0)[:40], seen(ENGINE, 0.0, level=400.0)[40:]
    assert Verdict(Tally(), [*first, *rest], bound=20.0).growing == []


def test_a_process_that_was_started_again_did_not_shrink() -> None:
    old, new = seen(ENGINE, 100.0)[:80], seen(ENGINE, 100.0, pid=9, level=10.0)[80:]
    growth = Verdict(Tally(), [*old, *new], bound=20.0).growth(ENGINE, "uss_mib")
    assert growth is not None
    assert 99 < growth.per_hour < 101


def test_what_should_never_happen_fails() -> None:
    tally = Tally()
    tally.note("POST /transcribe", "503")
    assert Verdict(tally, [], bound=20.0).exit_code == 0
    tally.note("POST /transcribe", "500", wrong=True)
    assert Verdict(tally, [], bound=20.0).exit_code == 1


def test_each_kind_has_a_row() -> None:
    rows = Verdict(Tally(), [*seen(ENGINE, 0.0), *seen(INGRESS, 7.0, pid=2)], 20.0).rows()
    assert [row.split(" | ")[0] for row in rows] == ["| engine replica", "| ingress replica"]
    assert "+7.0" in rows[1]
