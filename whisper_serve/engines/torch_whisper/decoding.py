"""openai-whisper's decoding loop, told exactly which tokens stand before the decode.

Source: `whisper/decoding.py` of openai-whisper.
"""

from __future__ import annotations

import torch
from torch.nn import functional
from whisper.decoding import DecodingOptions, DecodingTask, GreedyDecoder
from whisper.model import Whisper
from whisper.tokenizer import Tokenizer

from whisper_serve.engines.fallback import BEST_OF
from whisper_serve.engines.prompt import Prompt, suppressed_tokens

SEED = 0


class PromptedDecoding(DecodingTask):  # type: ignore[misc]  # whisper has no types
    """Decodes encoded audio behind a `Prompt`; run it once.

    The forced prefix counts as decoded: the result holds it, and the timestamp rules look at
    it. Whisper's own prefix is left out of the result, and the rules take the token behind it
    for the first one, which must be a timestamp within the first second.
    """

    def __init__(
        self,
        model: Whisper,
        prompt: Prompt,
        tokenizer: Tokenizer,
        temperature: float,
        beam_size: int,
    ) -> None:
        self._prompt_tokens = tuple(prompt.tokens(tokenizer))
        n_forced = len(prompt.prefix)
        n_free = model.dims.n_text_ctx // 2 - n_forced
        super().__init__(model, options(tokenizer, temperature, beam_size, n_free))
        self.sample_begin = len(self._prompt_tokens) - n_forced
        for rule in self.logit_filters:
            if hasattr(rule, "sample_begin"):
                rule.sample_begin = self.sample_begin
        if temperature > 0:
            self.decoder = SeededSampling(temperature, tokenizer.eot, model.device)

    def _get_initial_tokens(self) -> tuple[int, ...]:
        return self._prompt_tokens

    def _get_audio_features(self, mel: torch.Tensor) -> torch.Tensor:
        # What comes is encoded, in the model's own type; the stock method knows no bfloat16.
        return mel


class SeededSampling(GreedyDecoder):  # type: ignore[misc]  # whisper has no types
    """Draws tokens from a generator of its own, so that a decode gives the same whatever
    else the process draws."""

    def __init__(self, temperature: float, eot: int, device: torch.device) -> None:
        super().__init__(temperature, eot)
        self._generator = torch.Generator(device).manual_seed(SEED)

    def update(
        self, tokens: torch.Tensor, logits: torch.Tensor, sum_logprobs: torch.Tensor
    ) -> tuple[torch.Tensor, bool]:
        """Shapes: `tokens` (rows, length), `logits` (rows, vocab), `sum_logprobs` (rows,)."""
        probabilities = functional.softmax(logits / self.temperature, dim=-1)
        drawn = torch.multinomial(probabilities, 1, generator=self._generator)  # (rows, 1)
        ended = tokens[:, -1:] == self.eot
        logprobs = functional.log_softmax(logits, dim=-1).gather(1, drawn)
        sum_logprobs += logprobs.masked_fill(ended, 0.0).squeeze(1)
        drawn = drawn.masked_fill(ended, self.eot)
        return torch.cat([tokens, drawn], dim=-1), bool((drawn == self.eot).all())


def options(
    tokenizer: Tokenizer, temperature: float, beam_size: int, n_free: int
) -> DecodingOptions:
    """Greedy, beam search or the best of several samples; at most `n_free` tokens more."""
    sampling = temperature > 0
    return DecodingOptions(
        task=tokenizer.task or "transcribe",
        language=tokenizer.language or "en",
        temperature=temperature,
        sample_len=n_free,
        best_of=BEST_OF if sampling else None,
        beam_size=beam_size if beam_size > 1 and not sampling else None,
        suppress_tokens=suppressed_tokens(tokenizer),
    )
