// Lines of text, as `whisper_serve/text/lines.py` makes them: how wide they are, where they may be
// divided, and where that reads well. What is not explained here is explained there.

export const MAX_COLUMNS = 42;

// What a division costs behind a sentence, a clause, ..., a title as `Mr.`
export const SENTENCE = 0;
const CLAUSE = 1;
export const PAUSE = 2;
const WORD = 3;
const TITLE = 6;
const SHORT_WORD = 1;
const SHORT_WORD_COLUMNS = 4;
export const UNDIVIDED = 1e8;
const LINE = 1e3;
const UNEVEN = 8;

const ARROW = /--+>/g;
const CLOSED = "[\"'”’»«“)\\]}」』）】]*$";
const SENTENCE_END = new RegExp(`[.!?…‽。\\uff0e！？｡؟\\u06d4।॥\\u0589።။។།]${CLOSED}`, "u");
const CLAUSE_END = new RegExp(`[,;:\\u2013—、，\\uff1b：､،؛၊፣]${CLOSED}`, "u");
const ABBREVIATION =
  /^[^\p{L}\p{N}_]*(?:[A-HJ-Z]|(?:[\p{L}\p{Nl}\p{No}]\.)+[\p{L}\p{Nl}\p{No}]|Mrs?|Ms|Dr|St|Prof|Sra?)\.$/u;
const UNSPACED = /[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]/;
const NEVER_FIRST = new Set("ぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮະาำๅฯະາຳ");
const NEVER_LAST = new Set("เแโใไເແໂໃໄ");
const CLOSING = /[\p{Pe}\p{Pf}\p{Po}\p{Lm}\p{Sk}\p{Mn}\p{Mc}\p{Me}\p{Cf}]/u;
const OPENING = /[\p{Ps}\p{Pi}\p{Cf}]/u;
const DASH = /\p{Pd}/u;
const NO_COLUMN = /[\p{Mn}\p{Me}\p{Cf}]/u;
const NO_TEXT = /[\p{Cc}\p{Cs}]/gu;
const ALNUM = /[\p{L}\p{N}]/u;
const SPACES = /\p{White_Space}+/u;

// Wide and fullwidth characters, Unicode's East_Asian_Width W and F, which browsers do not tell.
const WIDE = rangesOf(
  `1100-115f 231a-231b 2329-232a 23e9-23ec 23f0 23f3 25fd-25fe 2614-2615 2648-2653 267f 2693 26a1
  26aa-26ab 26bd-26be 26c4-26c5 26ce 26d4 26ea 26f2-26f3 26f5 26fa 26fd 2705 270a-270b 2728 274c
  274e 2753-2755 2757 2795-2797 27b0 27bf 2b1b-2b1c 2b50 2b55 2e80-303e 3041-3247 3250-4dbf
  4e00-a4c6 a960-a97c ac00-d7a3 f900-faff fe10-fe19 fe30-fe6b ff01-ff60 ffe0-ffe6 16fe0-1b2fb
  1f004 1f0cf 1f18e 1f191-1f19a 1f200-1f320 1f32d-1f335 1f337-1f37c 1f37e-1f393 1f3a0-1f3ca
  1f3cf-1f3d3 1f3e0-1f3f0 1f3f4 1f3f8-1f43e 1f440 1f442-1f4fc 1f4ff-1f53d 1f54b-1f54e 1f550-1f567
  1f57a 1f595-1f596 1f5a4 1f5fb-1f64f 1f680-1f6c5 1f6cc 1f6d0-1f6d2 1f6d5-1f6df 1f6eb-1f6ec
  1f6f4-1f6fc 1f7e0-1f7f0 1f90c-1f93a 1f93c-1f945 1f947-1f9ff 1fa70-1faff 20000-3fffd`,
);

function rangesOf(text) {
  return text.split(/\s+/).map((range) => {
    const [first, last = first] = range.split("-").map((number) => parseInt(number, 16));
    return { first, last };
  });
}

/** `text` with a space for each control character and each half of a pair of UTF-16. */
export function plain(text) {
  return text.replace(NO_TEXT, " ");
}

/** What stands between the white space of a text. */
export function tokensOf(text) {
  return text.split(SPACES).filter(Boolean);
}

export function columnsOf(text) {
  let columns = 0;
  for (const char of text) columns += NO_COLUMN.test(char) ? 0 : isWide(char) ? 2 : 1;
  return columns;
}

function isWide(char) {
  const code = char.codePointAt(0);
  return code >= 0x1100 && WIDE.some(({ first, last }) => first <= code && code <= last);
}

function mayDivide(before, after, spaced) {
  const last = lastOf(before);
  const first = firstOf(after);
  if (spaced) {
    const closes = CLOSING.test(first) && isMark(after);
    const opens = (OPENING.test(last) || DASH.test(last)) && isMark(before);
    return !closes && !opens;
  }
  if (CLOSING.test(first) || DASH.test(first) || OPENING.test(last)) return false;
  if (NEVER_FIRST.has(first) || NEVER_LAST.has(last)) return false;
  return isUnspaced(last) || isUnspaced(first);
}

function firstOf(text) {
  return String.fromCodePoint(text.codePointAt(0));
}

function lastOf(text) {
  return Array.from(text.slice(-2)).at(-1);
}

function isMark(text) {
  return !ALNUM.test(text);
}

function isUnspaced(char) {
  return isWide(char) || UNSPACED.test(char);
}

function divisionCost(before, after) {
  if (!mayDivide(before.text, after.text, after.spaced)) return UNDIVIDED;
  if (endsSentence(before.text, after.text)) return SENTENCE;
  if (endsClause(before.text)) return CLAUSE;
  if (ABBREVIATION.test(before.text)) return TITLE;
  return WORD + (columnsOf(before.text) <= SHORT_WORD_COLUMNS ? SHORT_WORD : 0);
}

function endsSentence(text, following) {
  const letter = ALNUM.exec(following)?.[0] ?? "";
  return isStopped(text) && !/\p{Lowercase}/u.test(letter);
}

function endsClause(text) {
  return isStopped(text) || CLAUSE_END.test(text);
}

function isStopped(text) {
  return SENTENCE_END.test(text) && !ABBREVIATION.test(text);
}

/** Sums of the first 0, 1, ... of some numbers. */
export function sumsOf(numbers) {
  const sums = [0];
  for (const number of numbers) sums.push(sums.at(-1) + number);
  return sums;
}

/** Pieces {text, spaced} one behind the other. `costs[i]`: of a division behind piece `i`. */
export class Row {
  #pieces;
  #columns;

  constructor(pieces) {
    this.#pieces = pieces;
    this.#columns = sumsOf(pieces.map(({ text, spaced }) => columnsOf(text) + (spaced ? 1 : 0)));
    this.costs = pieces.map((piece, i) =>
      i + 1 < pieces.length ? divisionCost(piece, pieces[i + 1]) : SENTENCE,
    );
  }

  get length() {
    return this.#pieces.length;
  }

  /** Of the pieces from `first` up to, not including, `end` on one line. */
  columns(first, end) {
    return this.#columns[end] - this.#columns[first] - (this.#pieces[first].spaced ? 1 : 0);
  }

  text(first, end) {
    const pieces = this.#pieces.slice(first, end);
    const joined = pieces.map(({ text, spaced }) => (spaced ? ` ${text}` : text)).join("");
    return joined.replace(ARROW, "->").replace(/^ +/, "");
  }

  /** Where a line from `first` on ends that holds as much as fits. */
  reach(first) {
    let end = first + 1;
    while (end < this.length && this.columns(first, end + 1) <= MAX_COLUMNS) end += 1;
    for (let at = end; at > first; at -= 1) if (this.costs[at - 1] < UNDIVIDED) return at;
    return end;
  }
}

/** `count` things in parts [first, end], so that the costs of all parts are least. */
export function cheapestDivision(count, ends, cost) {
  const costs = [0, ...Array(count).fill(Infinity)];
  const origins = Array(count + 1).fill(0);
  for (let first = 0; first < count; first += 1) {
    for (const end of ends(first)) {
      const total = costs[first] + cost(first, end);
      if (total < costs[end]) [costs[end], origins[end]] = [total, first];
    }
  }
  const parts = [];
  for (let end = count; end > 0; end = origins[end]) parts.push([origins[end], end]);
  return parts.reverse();
}

/** `pieces` on as few lines as they need, divided where it reads well and evenly. */
export function linesOf(pieces) {
  const row = new Row(pieces);
  const cost = (first, end) => {
    const width = row.columns(first, end) / MAX_COLUMNS;
    return LINE + UNEVEN * width * width + row.costs[end - 1];
  };
  const parts = cheapestDivision(row.length, (first) => upTo(first + 1, row.reach(first)), cost);
  return parts.map(([first, end]) => row.text(first, end));
}

function upTo(first, last) {
  return Array.from({ length: last - first + 1 }, (_, i) => first + i);
}

/** What stands between the spaces of a text; where that is wider than a line, what may be divided
 * between wide characters. */
export function piecesOf(text) {
  return tokensOf(plain(text)).flatMap((token) =>
    divided(token).map((part, i) => ({ text: part, spaced: i === 0 })),
  );
}

function divided(token) {
  if (columnsOf(token) <= MAX_COLUMNS) return [token];
  const parts = [""];
  let before = null;
  for (const char of token) {
    if (before !== null && isCut(before, char)) parts.push("");
    parts[parts.length - 1] += char;
    before = char;
  }
  return parts;
}

function isCut(before, after) {
  return (isWide(before) || isWide(after)) && mayDivide(before, after, false);
}
