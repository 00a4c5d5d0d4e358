// A transcript as it grows. It knows no page.
//
// A piece is {text, start, end, probability}: a word with the white space before it, times in
// seconds. A paragraph is {start, language, pieces}.

import { languageName } from "./languages.js";

const PAUSE_S = 2;
const LONG_PARAGRAPH_S = 40;
const SENTENCE_END = /[.?!…。！？]["'”’)\]]*\s*$/;

export class Transcript {
  paragraphs = [];
  pending = "";
  language = null;
  #broken = false;

  /** Takes a `final` message in, `written` in a language that is not the spoken one when it was
   * translated. What was pending is part of it, or will be sent again. */
  hear(final, written = final.language) {
    this.pending = "";
    this.language = final.language ?? this.language;
    const pieces = piecesOf(final) ?? [piece(final.text, final)];
    for (const one of pieces) this.#append(one, written);
  }

  /** What is heard next begins a paragraph. */
  break() {
    this.#broken = true;
  }

  /** The paragraphs of an answer of `POST /transcribe`: one a segment. */
  static of({ segments, words, language, text, duration }, written = language) {
    const transcript = new Transcript();
    transcript.language = language;
    let rest = words ?? [];
    let position = 0;
    for (const segment of segments ?? [{ start: 0, end: duration ?? 0, text }]) {
      const mine = rest.filter((word) => word.start < segment.end);
      rest = rest.slice(mine.length);
      // With the space that is between the segments in the whole text.
      const until = text.indexOf(segment.text, position) + segment.text.length;
      const said = text.slice(position, until);
      position = until;
      const pieces = piecesOf({ text: said, words: mine }) ?? [piece(said, segment)];
      if (segment.text) transcript.paragraphs.push({ start: segment.start, language: written, pieces });
    }
    return transcript;
  }

  get isEmpty() {
    return this.paragraphs.length === 0;
  }

  get pieces() {
    return this.paragraphs.flatMap((paragraph) => paragraph.pieces);
  }

  /** All final text, a paragraph a line. */
  get text() {
    return this.paragraphs.map(({ pieces }) => joined(pieces).trim()).join("\n");
  }

  get languageName() {
    return languageName(this.language);
  }

  #append(one, language) {
    const last = this.paragraphs.at(-1);
    if (last && !this.#broken && !startsParagraph(last, one)) last.pieces.push(one);
    else this.paragraphs.push({ start: one.start, language, pieces: [one] });
    this.#broken = false;
  }
}

function startsParagraph({ start, pieces }, one) {
  const last = pieces.at(-1);
  if (one.start - last.end >= PAUSE_S) return true;
  return one.start - start > LONG_PARAGRAPH_S && SENTENCE_END.test(last.text);
}

/** The words of a text with the white space around them: their texts joined are the text.
 * Null when words and text do not fit each other, or there are no words. */
export function piecesOf({ text, words }) {
  const pieces = [];
  let from = 0;
  for (const word of words ?? []) {
    const at = text.indexOf(word.word, from);
    if (!word.word || at < 0 || text.slice(from, at).trim()) return null;
    const to = at + word.word.length;
    pieces.push(piece(text.slice(from, to), word));
    from = to;
  }
  if (!pieces.length || text.slice(from).trim()) return null;
  pieces.at(-1).text += text.slice(from);
  return pieces;
}

export function joined(pieces) {
  return pieces.map(({ text }) => text).join("");
}

function piece(text, { start, end, probability = null }) {
  return { text, start, end, probability };
}
