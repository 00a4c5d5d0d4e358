// Cues of subtitles, cut by the rule of the service: `whisper_serve/text/cues.py`, which says what
// it is and why. A change there is one here; a test compares the two.

import {
  cheapestDivision,
  columnsOf,
  linesOf,
  MAX_COLUMNS,
  PAUSE,
  piecesOf,
  plain,
  Row,
  SENTENCE,
  sumsOf,
  tokensOf,
  UNDIVIDED,
} from "./lines.js";

const MIN_MS = 1000;
const MAX_MS = 7000;
const MS_PER_COLUMN = 50;
const PAUSE_MS = 300;
const LAST_S = 1e7;

// What cues cost besides what divisions do.
const TOO_SHORT = 1e6;
const TOO_FAST = 1e4;
const MUCH_TOO_FAST = 20;
const PAUSE_WITHIN = 3;
const CUE = 1;
const FULL = 2;
const SENTENCE_WITHIN = 0.5;
const SENTENCE_ASIDE = 2;

/** The cues {startMs, endMs, lines} of a transcript's pieces. */
export function cuesOf(pieces) {
  return new Cutter(inOrder([...spokenIn(pieces)])).cues();
}

/** What has text: {piece, startMs, endMs, whole}, the last for text whose words have no times. A
 * space stands where one text ends or the next begins with one. */
function* spokenIn(pieces) {
  let spaced = false;
  for (const { text: said, start, end, probability } of pieces) {
    const text = plain(said);
    spaced ||= /^\p{White_Space}/u.test(text);
    const shown = tokensOf(text).join(" ");
    if (!shown) continue;
    const times = { startMs: milliseconds(start), endMs: milliseconds(end) };
    yield { piece: { text: shown, spaced }, ...times, whole: probability === null };
    spaced = /\p{White_Space}$/u.test(text);
  }
}

/** Halves go to the even number, as Python's do. */
function milliseconds(seconds) {
  const exact = Math.min(Math.max(seconds, 0), LAST_S) * 1000;
  const below = Math.floor(exact);
  if (exact - below !== 0.5) return Math.round(exact);
  return below % 2 ? below + 1 : below;
}

/** The same, each at least a millisecond long, and none beginning before the one before. */
function inOrder(spoken) {
  let earliest = 0;
  const found = spoken.map((one) => {
    const startMs = Math.max(earliest, one.startMs);
    const endMs = Math.max(startMs + 1, one.endMs);
    earliest = one.whole ? endMs : startMs + 1;
    return { ...one, startMs, endMs };
  });
  return found.map((one, i) => {
    const nextMs = found[i + 1]?.startMs ?? Infinity;
    return { ...one, endMs: Math.min(one.endMs, nextMs) };
  });
}

/** Cuts what is spoken, in order, into the cues that cost least together. */
class Cutter {
  #spoken;
  #row;
  #reach;
  #alone;
  #ends;
  #starts;
  #pauses;
  #pausesBefore;
  #sentencesBefore;

  constructor(spoken) {
    this.#spoken = spoken;
    this.#row = new Row(spoken.map(({ piece }) => piece));
    this.#reach = spoken.map((_, first) => this.#row.reach(first));
    this.#alone = spoken.map(({ whole, piece }) => whole || columnsOf(piece.text) > MAX_COLUMNS);
    this.#ends = spoken.map(({ endMs }) => endMs);
    // Behind the last word there is as much silence as it takes.
    this.#starts = [...spoken.map(({ startMs }) => startMs), (this.#ends.at(-1) ?? 0) + MAX_MS];
    const pauses = this.#ends.map((end, i) => this.#starts[i + 1] - end);
    this.#pauses = pauses.map((pause) => (pause >= PAUSE_MS ? pause : 0));
    this.#pausesBefore = sumsOf(this.#pauses);
    this.#sentencesBefore = sumsOf(this.#row.costs.map((cost) => (cost === SENTENCE ? 1 : 0)));
  }

  cues() {
    const parts = cheapestDivision(
      this.#spoken.length,
      (first) => this.#mayEnd(first),
      (first, end) => this.#cost(first, end),
    );
    return parts.map(([first, end]) => this.#cue(first, end));
  }

  #cue(first, end) {
    const pieces = this.#spoken.slice(first, end).map(({ piece }) => piece);
    const lines = linesOf(pieces.length > 1 ? pieces : piecesOf(pieces[0].text));
    return { startMs: this.#starts[first], endMs: this.#endMs(first, end), lines };
  }

  /** Where a cue from word `first` on may end by its lines and its length. */
  *#mayEnd(first) {
    yield first + 1;
    if (this.#alone[first]) return;
    const lineEnd = this.#reach[first];
    const last = this.#reach[lineEnd] ?? lineEnd;
    for (let end = first + 2; end <= last; end += 1) {
      if (this.#alone[end - 1] || this.#ends[end - 1] - this.#starts[first] > MAX_MS) return;
      yield end;
    }
  }

  #endMs(first, end) {
    if (this.#spoken[first].whole) return this.#ends[first];
    const needed = Math.min(Math.max(MIN_MS, this.#row.columns(first, end) * MS_PER_COLUMN), MAX_MS);
    const shown = Math.max(this.#ends[end - 1], this.#starts[first] + needed);
    return Math.min(shown, this.#starts[end]);
  }

  #cost(first, end) {
    const columns = this.#row.columns(first, end);
    const shownMs = this.#endMs(first, end) - this.#starts[first];
    const fullness = columns / (2 * MAX_COLUMNS);
    let cost = CUE + FULL * (fullness * fullness);
    cost += this.#behind(end - 1) + this.#within(first, end);
    if (shownMs < MIN_MS) cost += TOO_SHORT;
    if (shownMs < columns * MS_PER_COLUMN) {
      const tooFast = (columns * MS_PER_COLUMN) / shownMs - 1;
      cost += TOO_FAST + MUCH_TOO_FAST * Math.min(tooFast, 1);
    }
    return cost;
  }

  /** What it costs to end behind word `last`. */
  #behind(last) {
    const cost = this.#row.costs[last];
    return this.#pauses[last] && cost < UNDIVIDED ? Math.min(cost, PAUSE) : cost;
  }

  /** What the pauses and the ends of sentences cost that a cue goes over. */
  #within(first, end) {
    const pausesMs = this.#pausesBefore[end - 1] - this.#pausesBefore[first];
    const sentences = this.#sentencesBefore[end - 1] - this.#sentencesBefore[first];
    const begins = first === 0 || this.#row.costs[first - 1] === SENTENCE;
    const whole = begins && this.#row.costs[end - 1] === SENTENCE;
    const each = whole ? SENTENCE_WITHIN : SENTENCE_ASIDE;
    return (PAUSE_WITHIN * pausesMs) / 1000 + each * sentences;
  }
}
