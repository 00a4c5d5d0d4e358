// Transcripts as files: plain text, SRT and WebVTT.

import { cuesOf } from "./cues.js";

export function toText(transcript) {
  return transcript.isEmpty ? "" : `${transcript.text}\n`;
}

export function toSrt({ pieces }) {
  const time = (ms) => clock(ms).replace(".", ",");
  const blocks = cuesOf(pieces).map(
    ({ startMs, endMs, lines }, i) =>
      `${i + 1}\n${time(startMs)} --> ${time(endMs)}\n${lines.join("\n")}\n`,
  );
  return blocks.join("\n");
}

export function toVtt({ pieces }) {
  const blocks = cuesOf(pieces).map(
    ({ startMs, endMs, lines }) =>
      `${clock(startMs)} --> ${clock(endMs)}\n${escaped(lines.join("\n"))}\n`,
  );
  return ["WEBVTT\n", ...blocks].join("\n");
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
