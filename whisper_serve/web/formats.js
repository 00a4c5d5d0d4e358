// Transcripts as files: plain text, SRT and WebVTT.

import { joined, SENTENCE_END } from "./transcript.js";

const MAX_CUE_CHARS = 84; // two lines
const MAX_CUE_S = 7;
const MIN_SENTENCE_S = 2;
const PAUSE_S = 1;

export function toText(transcript) {
  return transcript.isEmpty ? "" : `${transcript.text}\n`;
}

export function toSrt(cues) {
  const time = (ms) => clock(ms).replace(".", ",");
  const blocks = inOrder(cues).map(
    ({ startMs, endMs, text }, i) => `${i + 1}\n${time(startMs)} --> ${time(endMs)}\n${text}\n`,
  );
  return blocks.join("\n");
}

export function toVtt(cues) {
  const blocks = inOrder(cues).map(
    ({ startMs, endMs, text }) => `${clock(startMs)} --> ${clock(endMs)}\n${escaped(text)}\n`,
  );
  return ["WEBVTT\n", ...blocks].join("\n");
}

/** The cues {start, end, text} of a transcript, in seconds: no longer than two lines or seven
 * seconds where words allow it, cut at pauses and behind sentences. */
export function cuesOf(transcript) {
  const groups = [];
  for (const { pieces } of transcript.paragraphs) {
    let group = null;
    for (const piece of pieces) {
      if (group && !endsBefore(group, piece)) group.push(piece);
      else groups.push((group = [piece]));
    }
  }
  return groups.map((group) => ({ start: group[0].start, end: group.at(-1).end, text: joined(group) }));
}

function endsBefore(group, piece) {
  const { start } = group[0];
  const { end, text } = group.at(-1);
  return (
    piece.start - end >= PAUSE_S ||
    piece.end - start > MAX_CUE_S ||
    joined(group).trim().length + piece.text.length > MAX_CUE_CHARS ||
    (end - start >= MIN_SENTENCE_S && SENTENCE_END.test(text))
  );
}

/** Times are rounded to whole milliseconds here, once; cues are at least one long and none
 * begins before the end of the one before. */
function inOrder(cues) {
  const out = [];
  let earliest = 0;
  for (const cue of cues) {
    const text = cueText(cue.text);
    if (!text) continue;
    const startMs = Math.max(earliest, Math.round(cue.start * 1000));
    const endMs = Math.max(startMs + 1, Math.round(cue.end * 1000));
    out.push({ startMs, endMs, text });
    earliest = endMs;
  }
  return out;
}

/** On one line, without the arrow that stands in a cue's header. */
function cueText(text) {
  return text.replace(/--+>/g, "->").trim().split(/\s+/).join(" ");
}

/** WebVTT reads `&` and `<` as markup. */
function escaped(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
}

function clock(ms) {
  const part = (value, width = 2) => String(value).padStart(width, "0");
  const seconds = Math.floor(ms / 1000);
  const minutes = Math.floor(seconds / 60);
  const hours = Math.floor(minutes / 60);
  return `${part(hours)}:${part(minutes % 60)}:${part(seconds % 60)}.${part(ms % 1000, 3)}`;
}
