"""Whisper's tensors, read from OpenAI's checkpoint or CTranslate2's folder and written as one.

Both hold the same numbers under other names; here they go by OpenAI's.
"""

from __future__ import annotations

import base64
import gzip
import json
import pickle
import struct
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
import whisper
from ctranslate2.specs import WhisperSpec
from ctranslate2.specs.model_spec import index_spec
from whisper.model import ModelDimensions
from whisper.tokenizer import Tokenizer, get_tokenizer

from whisper_serve.engines.layer_names import POSITIONS, has_bias, linears, norms
from whisper_serve.engines.model_bin import read_model_bin
from whisper_serve.engines.prompt import suppressed_tokens
from whisper_serve.errors import WeightsError

Tensors = dict[str, torch.Tensor]
Heads = tuple[tuple[int, int], ...]  # (decoder layer, head)

# What reading a file raises that was cut off or is something else.
BROKEN = (
    OSError,
    EOFError,
    struct.error,
    pickle.UnpicklingError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
)
FIRST_MULTILINGUAL_VOCAB = 51_865


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A Whisper model. `tensors` is what `whisper.model.Whisper(dims)` loads as its state.

    `alignment_heads`: the heads of the cross attention that follow the speech in time.
    """

    dims: ModelDimensions
    tensors: Tensors
    alignment_heads: Heads

    def alignment_mask(self) -> torch.Tensor:
        """bool, shape (n_text_layer, n_text_head), true for an alignment head."""
        mask = torch.zeros(self.dims.n_text_layer, self.dims.n_text_head, dtype=torch.bool)
        for layer, head in self.alignment_heads:
            mask[layer, head] = True
        return mask


def read_openai_checkpoint(path: Path, name: str | None = None) -> Checkpoint:
    """Read a `.pt` file; its tensors stay on the disk until they are used.

    `name` of the model, by default the file's, decides on the alignment heads. Raises
    `WeightsError` when the file is broken or something else.
    """
    try:
        content = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
        dims = ModelDimensions(**content["dims"])
        tensors = dict(content["model_state_dict"])
        checkpoint = Checkpoint(dims, tensors, openai_alignment_heads(name or path.stem, dims))
        _require_all(path, checkpoint)
    except BROKEN as exc:
        raise WeightsError(f"{path} is no Whisper checkpoint: {_first_line(exc)}") from exc
    return checkpoint


def openai_alignment_heads(name: str, dims: ModelDimensions) -> Heads:
    """The heads that OpenAI names for its model `name`; for any other model every head in the
    upper half of the decoder, as in `whisper.model.Whisper`."""
    dump = whisper._ALIGNMENT_HEADS.get(name)
    if dump is not None:
        mask = np.frombuffer(gzip.decompress(base64.b85decode(dump)), dtype=bool)
        if mask.size == dims.n_text_layer * dims.n_text_head:
            layers, heads = np.nonzero(mask.reshape(dims.n_text_layer, dims.n_text_head))
            return tuple(zip(layers.tolist(), heads.tolist(), strict=True))
    return upper_half_heads(dims)


def upper_half_heads(dims: ModelDimensions) -> Heads:
    upper = range(dims.n_text_layer // 2, dims.n_text_layer)
    return tuple(product(upper, range(dims.n_text_head)))


def read_ctranslate2(folder: Path) -> Checkpoint:
    """Read a folder of CTranslate2. Quantised weights come back as float32, other ones in the
    type that they are stored in. Raises `WeightsError` when the folder is broken."""
    try:
        variables = read_model_bin(folder / "model.bin")
        dims = _dims_of(variables)
        tensors = dict(_to_openai(variables, dims))
        checkpoint = Checkpoint(dims, tensors, _config_heads(folder / "config.json", dims))
        _require_all(folder, checkpoint)
    except BROKEN as exc:
        raise WeightsError(f"{folder} is no Whisper model: {_first_line(exc)}") from exc
    return checkpoint


def write_ctranslate2(
    checkpoint: Checkpoint, folder: Path, *, quantization: str = "float16"
) -> None:
    """Write `model.bin`, `config.json` and `vocabulary.json` into the existing `folder`.

    `quantization`: a type of CTranslate2, such as int8. Raises `WeightsError` when the model's
    vocabulary is none of Whisper's, `OSError` when the folder cannot be written.
    """
    dims = checkpoint.dims
    tokenizer = _tokenizer_of(dims)
    spec = WhisperSpec(dims.n_audio_layer, dims.n_audio_head, dims.n_text_layer, dims.n_text_head)
    _fill(spec, checkpoint)
    spec.register_vocabulary(vocabulary_of(tokenizer))
    spec.config.suppress_ids = suppressed_tokens(tokenizer)
    spec.config.suppress_ids_begin = [*tokenizer.encode(" "), tokenizer.eot]
    spec.config.lang_ids = sorted(tokenizer.all_language_tokens)
    spec.config.alignment_heads = [list(head) for head in checkpoint.alignment_heads]
    spec.validate()
    spec.optimize(quantization=quantization)
    spec.save(str(folder))


def vocabulary_of(tokenizer: Tokenizer) -> list[str]:
    """Every token as CTranslate2 wants it written, by token number."""
    special = {number: text for text, number in tokenizer.special_tokens.items()}
    special[tokenizer.no_speech] = "<|nocaptions|>"  # the name that CTranslate2 looks for
    characters = byte_characters()
    return [
        special.get(token)
        or "".join(characters[byte] for byte in tokenizer.encoding.decode_single_token_bytes(token))
        for token in range(tokenizer.encoding.n_vocab)
    ]


def byte_characters() -> list[str]:
    """A visible character for each of the 256 bytes.

    Source: `bytes_to_unicode` in `encoder.py` of GPT-2.
    """
    visible = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)}
    visible |= set(range(ord("®"), ord("ÿ") + 1))
    hidden = [byte for byte in range(256) if byte not in visible]
    return [chr(byte if byte in visible else 256 + hidden.index(byte)) for byte in range(256)]


def _dims_of(variables: Mapping[str, torch.Tensor]) -> ModelDimensions:
    n_audio_ctx, n_audio_state = variables["encoder/position_encodings/encodings"].shape
    n_text_ctx, n_text_state = variables["decoder/position_encodings/encodings"].shape
    return ModelDimensions(
        n_mels=variables["encoder/conv1/weight"].shape[1],
        n_audio_ctx=n_audio_ctx,
        n_audio_state=n_audio_state,
        n_audio_head=int(variables["encoder/num_heads"]),
        n_audio_layer=_layer_count(variables, "encoder"),
        n_vocab=variables["decoder/embeddings/weight"].shape[0],
        n_text_ctx=n_text_ctx,
        n_text_state=n_text_state,
        n_text_head=int(variables["decoder/num_heads"]),
        n_text_layer=_layer_count(variables, "decoder"),
    )


def _layer_count(variables: Mapping[str, torch.Tensor], side: str) -> int:
    suffix = "/self_attention/linear_0/weight"
    return sum(n.startswith(f"{side}/layer_") and n.endswith(suffix) for n in variables)


def _to_openai(
    variables: Mapping[str, torch.Tensor], dims: ModelDimensions
) -> Iterator[tuple[str, torch.Tensor]]:
    for layer, modules in linears(dims):
        for kind in ("weight", "bias"):
            if (rows := variables.get(f"{layer}/{kind}")) is None:
                continue
            for module, part in zip(modules, rows.chunk(len(modules)), strict=True):
                if kind == "weight" or has_bias(module):
                    yield f"{module}.{kind}", part
    for layer, norm in norms(dims):
        yield f"{norm}.weight", variables[f"{layer}/gamma"]
        yield f"{norm}.bias", variables[f"{layer}/beta"]
    for layer, name in POSITIONS.items():
        yield name, variables[f"{layer}/encodings"]


def _config_heads(path: Path, dims: ModelDimensions) -> Heads:
    heads = json.loads(path.read_text(encoding="utf-8")).get("alignment_heads")
    if not heads:
        return upper_half_heads(dims)
    heads = tuple((int(layer), int(head)) for layer, head in heads)
    if not set(heads) <= set(product(range(dims.n_text_layer), range(dims.n_text_head))):
        raise ValueError("config.json names alignment heads that the model does not have")
    return heads


def _fill(spec: WhisperSpec, checkpoint: Checkpoint) -> None:
    tensors = checkpoint.tensors
    for name, modules in linears(checkpoint.dims):
        layer = index_spec(spec, name)
        layer.weight = torch.cat([tensors[f"{module}.weight"] for module in modules])
        if any(has_bias(module) for module in modules):
            layer.bias = torch.cat([_bias_of(module, tensors) for module in modules])
    for name, norm in norms(checkpoint.dims):
        layer = index_spec(spec, name)
        layer.gamma, layer.beta = tensors[f"{norm}.weight"], tensors[f"{norm}.bias"]
    for name, position in POSITIONS.items():
        index_spec(spec, name).encodings = tensors[position]
    spec.decoder.projection.weight = spec.decoder.embeddings.weight


def _bias_of(module: str, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    if has_bias(module):
        return tensors[f"{module}.bias"]
    weight = tensors[f"{module}.weight"]
    return torch.zeros(len(weight), dtype=weight.dtype)


def _tokenizer_of(dims: ModelDimensions) -> Tokenizer:
    multilingual = dims.n_vocab >= FIRST_MULTILINGUAL_VOCAB
    # As in `whisper.model.Whisper.num_languages`.
    num_languages = dims.n_vocab - 51_765 - int(multilingual)
    tokenizer = get_tokenizer(multilingual, num_languages=num_languages)
    if tokenizer.encoding.n_vocab != dims.n_vocab:
        raise WeightsError(f"no vocabulary of Whisper has {dims.n_vocab} tokens")
    return tokenizer


def _first_line(exc: BaseException) -> str:
    return str(exc).strip().partition("\n")[0] or type(exc).__name__


def _require_all(path: Path, checkpoint: Checkpoint) -> None:
    modules = [module for _, joined in linears(checkpoint.dims) for module in joined]
    modules += [norm for _, norm in norms(checkpoint.dims)]
    names = {f"{module}.weight" for module in modules} | set(POSITIONS.values())
    names |= {f"{module}.bias" for module in modules if has_bias(module)}
    if missing := names - checkpoint.tensors.keys():
        raise WeightsError(f"{path} lacks {len(missing)} tensors, one is {min(missing)}")
