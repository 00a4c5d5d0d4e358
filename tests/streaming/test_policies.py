from __future__ import annotations

import pytest

from whisper_serve.streaming.messages import StreamConfig
from whisper_serve.streaming.policies import (
    MAX_UTTERANCE_S,
    AgreementPolicy,
    ChunkPolicy,
    Ending,
    Policy,
    Progress,
    UtterancePolicy,
    make_policy,
)
from whisper_serve.text.transcript import Word


def words(*texts: str) -> list[Word]:
    """Each takes half a second."""
    return [Word(f" {text}", 0.5 * n, 0.5 * n + 0.5, 0.9) for n, text in enumerate(texts)]


def progress(
    new_s: float, *, speech_s: float = 1.0, silence_s: float = 0.0, answer_s: float = 0.0
) -> Progress:
    return Progress(new_s, speech_s, silence_s=silence_s, answer_s=answer_s)


@pytest.mark.parametrize(
    "policy", [ChunkPolicy(5.0, 0.5), AgreementPolicy(0.5), UtterancePolicy(0.5)]
)
def test_nothing_is_due_while_nobody_speaks(policy: Policy) -> None:
    assert not policy.is_due(progress(20.0, speech_s=0.0, silence_s=20.0))


@pytest.mark.parametrize(
    ("policy", "before", "then"),
    [
        (ChunkPolicy(5.0, 0.5), progress(4.99), progress(5.0)),
        (AgreementPolicy(0.5), progress(0.99), progress(1.0)),
        (AgreementPolicy(0.5), progress(2.4, answer_s=2.0), progress(2.5, answer_s=2.0)),
        (AgreementPolicy(0.5), progress(4.9, answer_s=60.0), progress(5.0, answer_s=60.0)),
        (UtterancePolicy(0.5), progress(3.0, silence_s=0.5), progress(3.0, silence_s=0.6)),
        (UtterancePolicy(0.5), progress(MAX_UTTERANCE_S - 0.01), progress(MAX_UTTERANCE_S)),
    ],
    ids=["chunk", "agreement", "slow engine", "slowest engine", "pause", "unbroken speech"],
)
def test_each_policy_has_its_time(policy: Policy, before: Progress, then: Progress) -> None:
    assert not policy.is_due(before)
    assert policy.is_due(then)


@pytest.mark.parametrize("policy", [ChunkPolicy(5.0, 0.6), UtterancePolicy(0.6)])
def test_words_within_the_overlap_are_not_final(policy: Policy) -> None:
    said = words("one", "two", "three", "four")
    assert policy.final_words(said, Ending(2.0, 0.0)) == 2
    assert policy.final_words([], Ending(2.0, 0.0)) == 0


@pytest.mark.parametrize("policy", [ChunkPolicy(5.0, 0.6), UtterancePolicy(0.6)])
def test_behind_a_pause_nothing_is_untrusted(policy: Policy) -> None:
    assert policy.final_words(words("one", "two"), Ending(1.2, 0.3)) == 2


def test_agreement_takes_what_two_hypotheses_in_a_row_agree_on() -> None:
    policy = AgreementPolicy(0.1)
    assert policy.final_words(words("the", "cat"), Ending(9.0, 0.0)) == 0
    assert policy.final_words(words("the", "hat", "sat"), Ending(9.0, 0.0)) == 1
    # The one before is now "hat sat".
    assert policy.final_words(words("hat", "sat", "on"), Ending(9.0, 0.0)) == 2


def test_agreement_within_the_overlap_is_not_final_yet() -> None:
    policy = AgreementPolicy(0.6)
    policy.remember(words("the", "cat"))
    assert policy.final_words(words("the", "cat"), Ending(1.0, 0.0)) == 0
    assert policy.final_words(words("the", "cat"), Ending(1.6, 0.0)) == 2


def test_agreement_starts_anew_behind_what_was_settled_otherwise() -> None:
    policy = AgreementPolicy(0.1)
    policy.final_words(words("the"), Ending(9.0, 0.0))
    policy.remember(())
    assert policy.final_words(words("the"), Ending(9.0, 0.0)) == 0


@pytest.mark.parametrize(
    ("name", "kind"),
    [("chunk", ChunkPolicy), ("agreement", AgreementPolicy), ("utterance", UtterancePolicy)],
)
def test_a_policy_is_made_by_its_name(name: str, kind: type[Policy]) -> None:
    assert isinstance(make_policy(StreamConfig.parse({"policy": name})), kind)
