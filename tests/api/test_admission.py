"""Streams are counted while they are there, and refused beyond the limits."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from whisper_serve.api.admission import Admission
from whisper_serve.errors import Overloaded, TooManyStreams


def test_streams_are_counted_while_they_are_there() -> None:
    admission = Admission(limit=2, limit_per_client=2)
    with admission.admit("a"):
        with admission.admit("b"):
            assert admission.streams == 2
        assert admission.streams == 1
    assert admission.streams == 0


def test_a_stream_beyond_the_limit_of_all_is_refused_for_now() -> None:
    admission = Admission(limit=2, limit_per_client=2)
    with ExitStack() as streams:
        streams.enter_context(admission.admit("a"))
        streams.enter_context(admission.admit("b"))
        with pytest.raises(Overloaded) as refused, admission.admit("c"):
            pass
        assert refused.value.retry_after_s > 0
        assert admission.streams == 2
    with admission.admit("c"):
        assert admission.streams == 1


def test_a_client_s_own_limit_holds_for_no_other() -> None:
    admission = Admission(limit=10, limit_per_client=1)
    with admission.admit("a"):
        with pytest.raises(TooManyStreams, match="no more than 1"), admission.admit("a"):
            pass
        with admission.admit("b"):
            assert admission.streams == 2
    with admission.admit("a"):
        assert admission.streams == 1


def test_a_full_service_is_told_before_a_full_client() -> None:
    """The first goes away by itself, the second does not."""
    admission = Admission(limit=1, limit_per_client=1)
    with admission.admit("a"), pytest.raises(Overloaded), admission.admit("a"):
        pass


def test_a_stream_that_breaks_gives_its_place_back() -> None:
    admission = Admission(limit=1, limit_per_client=1)
    with pytest.raises(ZeroDivisionError), admission.admit("a"):
        raise ZeroDivisionError
    assert admission.streams == 0


def test_clients_that_are_gone_are_forgotten() -> None:
    admission = Admission(limit=1, limit_per_client=1)
    for number in range(1_000):
        with admission.admit(str(number)):
            pass
    assert not admission._streams


def test_a_key_s_holder_has_a_limit_of_its_own_from_whatever_address() -> None:
    admission = Admission(limit=10, limit_per_client=1)
    with ExitStack() as streams:
        for _ in range(2):
            streams.enter_context(admission.admit_caller("radio", 2))
        with pytest.raises(TooManyStreams, match="no more than 2"):
            streams.enter_context(admission.admit_caller("radio", 2))
        streams.enter_context(admission.admit_caller("other", 2))
        assert admission.streams == 3


def test_a_key_s_holder_without_a_limit_has_that_of_all() -> None:
    admission = Admission(limit=2, limit_per_client=1)
    with ExitStack() as streams:
        for _ in range(2):
            streams.enter_context(admission.admit_caller("radio", None))
        with pytest.raises(Overloaded):
            streams.enter_context(admission.admit_caller("radio", None))


def test_a_name_that_looks_like_an_address_is_no_address() -> None:
    admission = Admission(limit=10, limit_per_client=1)
    with admission.admit("10.0.0.1"), admission.admit_caller("10.0.0.1", 1):
        assert admission.streams == 2
