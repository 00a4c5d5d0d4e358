"""What CTranslate2 and OpenAI call the layers of Whisper.

CTranslate2 joins the rows of query, key and value where all three see the same input.
"""

from __future__ import annotations

from collections.abc import Iterator

from whisper.model import ModelDimensions

POSITIONS = {
    "encoder/position_encodings": "encoder.positional_embedding",
    "decoder/position_encodings": "decoder.positional_embedding",
}


def linears(dims: ModelDimensions) -> Iterator[tuple[str, tuple[str, ...]]]:
    """CTranslate2's layers with a weight (and bias), and the OpenAI modules whose rows each
    one holds, in order."""
    yield "encoder/conv1", ("encoder.conv1",)
    yield "encoder/conv2", ("encoder.conv2",)
    yield "decoder/embeddings", ("decoder.token_embedding",)
    for layer, block in _blocks(dims):
        attention = [f"{block}.attn.{part}" for part in ("query", "key", "value")]
        yield f"{layer}/self_attention/linear_0", tuple(attention)
        yield f"{layer}/self_attention/linear_1", (f"{block}.attn.out",)
        yield f"{layer}/ffn/linear_0", (f"{block}.mlp.0",)
        yield f"{layer}/ffn/linear_1", (f"{block}.mlp.2",)
        if layer.startswith("decoder"):
            cross = f"{block}.cross_attn"
            yield f"{layer}/attention/linear_0", (f"{cross}.query",)
            yield f"{layer}/attention/linear_1", (f"{cross}.key", f"{cross}.value")
            yield f"{layer}/attention/linear_2", (f"{cross}.out",)


def norms(dims: ModelDimensions) -> Iterator[tuple[str, str]]:
    yield "encoder/layer_norm", "encoder.ln_post"
    yield "decoder/layer_norm", "decoder.ln"
    for layer, block in _blocks(dims):
        yield f"{layer}/self_attention/layer_norm", f"{block}.attn_ln"
        yield f"{layer}/ffn/layer_norm", f"{block}.mlp_ln"
        if layer.startswith("decoder"):
            yield f"{layer}/attention/layer_norm", f"{block}.cross_attn_ln"


def _blocks(dims: ModelDimensions) -> Iterator[tuple[str, str]]:
    for side, count in (("encoder", dims.n_audio_layer), ("decoder", dims.n_text_layer)):
        for number in range(count):
            yield f"{side}/layer_{number}", f"{side}.blocks.{number}"


def has_bias(module: str) -> bool:
    return not module.endswith((".key", ".token_embedding"))
