"""The audio formats that the service reads, and what FFmpeg calls them."""

from __future__ import annotations

# First part of FFmpeg's name of the demuxer -> names for it; the first one is canonical.
FORMATS = {
    "wav": (".wav", ".wave"),
    "mp3": (".mp3",),
    "mov": (".mp4", ".m4a", ".m4b", ".mov", ".3gp"),
    "ogg": (".ogg", ".oga", ".opus"),
    "flac": (".flac",),
    "matroska": (".webm", ".mkv", ".mka"),
    "aac": (".aac",),
    "aiff": (".aiff", ".aif", ".aifc"),
}
DECODERS = (
    *("aac", "alac", "flac", "opus", "libopus", "vorbis", "speex", "ac3", "eac3"),
    *("mp1", "mp1float", "mp2", "mp2float", "mp3", "mp3float", "amrnb", "amrwb"),
    *("pcm_u8", "pcm_s8", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_s32le"),
    *("pcm_s32be", "pcm_f32le", "pcm_f32be", "pcm_f64le", "pcm_f64be", "pcm_alaw", "pcm_mulaw"),
    *("adpcm_ima_qt", "adpcm_ima_wav", "adpcm_ms", "gsm_ms"),
)
# What FFmpeg knows but may not open, to tell the sender its name: (offset, bytes, name).
FOREIGN = (
    (8, b"AVI ", ".avi"),
    (0, b"\x30\x26\xb2\x75", ".wma"),
    (0, b"caff", ".caf"),
    (0, b".snd", ".au"),
    (0, b"riff", ".w64"),
    (0, b"#!AMR", ".amr"),
    (0, b"wvpk", ".wv"),
    (0, b"MAC ", ".ape"),
    (0, b"TTA", ".tta"),
    (0, b"DSD ", ".dsf"),
    (0, b"FLV", ".flv"),
    (0, b"\x0b\x77", ".ac3"),
    (0, b".RMF", ".rm"),
    (0, b"Creative Voice File", ".voc"),
    (0, b"\x00\x00\x01\xba", ".mpg"),
    (188, b"G", ".ts"),
)
IMAGES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\x00", b"MM\x00*")


def canonical_format(name: str) -> str:
    """The one name of the format that `name` names, as in `"M4A"` -> `".mp4"`.

    Case and the leading dot do not matter. Raises `ValueError` for an unknown name.
    """
    dotted = "." + name.lower().removeprefix(".")
    for names in FORMATS.values():
        if dotted in names:
            return names[0]
    known = ", ".join(known for names in FORMATS.values() for known in names)
    raise ValueError(f"{name!r} is not a known audio format; known: {known}")
