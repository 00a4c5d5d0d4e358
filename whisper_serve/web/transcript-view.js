// A transcript on the page: words, what is pending, and the buttons to take it along.

import { toSrt, toText, toVtt } from "./formats.js";

const MIDDLE = 0.9;
const LOW = 0.6;
const NEAR_END_PX = 24;
const HINT = "Point at a word, or go from word to word with ← →";
const FORMATS = {
  txt: { type: "text/plain", make: toText },
  srt: { type: "application/x-subrip", make: toSrt },
  vtt: { type: "text/vtt", make: toVtt },
};

export class TranscriptView {
  #transcript = null;
  #box;
  #paragraphs;
  #pending = document.createElement("span");
  #newest;
  #detail;
  #said;
  #follow;
  #follows;
  #scrolledTo = 0;
  #name;
  #current = null;

  /** `follows`: whether the newest text is kept in sight. `name()` is that of a download,
   * without its ending. `onClear()` is called by the button. */
  constructor(host, { placeholder, follows, name, onClear }) {
    host.append(document.getElementById("transcript").content.cloneNode(true));
    this.#box = host.querySelector(".text");
    this.#paragraphs = host.querySelector(".paragraphs");
    this.#newest = host.querySelector(".newest");
    this.#detail = host.querySelector(".detail");
    this.#said = host.querySelector(".done");
    this.#follow = this.#follows = follows;
    this.#name = name;
    this.#pending.className = "pending";
    this.host = host;
    host.querySelector(".placeholder").textContent = placeholder;
    this.#listen(onClear);
    this.show(null);
  }

  /** Shows a transcript, or what was added to the one that is shown; null empties it. */
  show(transcript) {
    if (transcript !== this.#transcript) this.#empty();
    this.#transcript = transcript;
    this.#follow = this.#isAtEnd();
    this.#pending.remove();
    const paragraphs = transcript?.paragraphs ?? [];
    const from = Math.max(0, this.#paragraphs.children.length - 1);
    paragraphs.slice(from).forEach((paragraph, i) => this.#add(paragraph, from + i));
    this.#showPending(transcript?.pending ?? "");
    this.#showState();
    if (this.#follow) this.#toEnd();
    this.#newest.hidden = this.#follow || !this.#follows;
  }

  #empty() {
    this.#paragraphs.replaceChildren();
    this.#point(null);
    this.#follow = this.#follows;
    this.#said.textContent = "";
    this.#box.scrollTop = this.#scrolledTo = 0;
  }

  #showState() {
    const empty = !this.#transcript || this.#transcript.isEmpty;
    this.host.dataset.state = empty && !this.#transcript?.pending ? "empty" : "filled";
    this.host.querySelector(".below").hidden = empty;
    for (const button of this.host.querySelectorAll("[data-does]")) button.disabled = empty;
  }

  #add(paragraph, index) {
    const element = this.#paragraphs.children[index] ?? this.#begin();
    const [time, words] = element.children;
    const shown = Number(words.dataset.pieces ?? 0);
    time.textContent = minutes(paragraph.start);
    if (paragraph.language) words.lang = paragraph.language;
    for (const piece of paragraph.pieces.slice(shown)) words.append(...nodesOf(piece));
    words.dataset.pieces = paragraph.pieces.length;
  }

  #begin() {
    const element = document.createElement("p");
    const time = document.createElement("span");
    const words = document.createElement("span");
    time.className = "time";
    time.setAttribute("aria-hidden", "true");
    words.className = "words";
    words.dir = "auto";
    element.append(time, words);
    this.#paragraphs.append(element);
    return element;
  }

  #showPending(text) {
    this.#pending.textContent = text;
    if (!text) return;
    const last = this.#paragraphs.lastElementChild ?? this.#begin();
    last.querySelector(".words").append(this.#pending);
  }

  #listen(onClear) {
    this.host.querySelector("[data-does=clear]").addEventListener("click", onClear);
    this.host.querySelector("[data-does=copy]").addEventListener("click", () => this.#copy());
    for (const [ending, format] of Object.entries(FORMATS)) {
      const button = this.host.querySelector(`[data-does=${ending}]`);
      button.addEventListener("click", () => this.#save(ending, format));
    }
    this.#box.addEventListener("scroll", () => this.#scrolled());
    this.#box.addEventListener("keydown", (event) => this.#key(event));
    this.#box.addEventListener("pointerover", ({ target }) => this.#point(target.closest(".word")));
    this.#box.addEventListener("click", ({ target }) => this.#point(target.closest(".word")));
    this.#newest.addEventListener("click", () => {
      this.#toEnd();
      this.#box.focus();
    });
  }

  #toEnd() {
    this.#box.scrollTop = this.#box.scrollHeight;
    this.#scrolledTo = this.#box.scrollTop;
  }

  /** Also when the text has grown or the box has shrunk since it was scrolled to its end. */
  #isAtEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.#box;
    const near = scrollHeight - scrollTop - clientHeight < NEAR_END_PX;
    return this.#follows && (near || (this.#follow && scrollTop >= this.#scrolledTo));
  }

  #scrolled() {
    this.#follow = this.#isAtEnd();
    this.#newest.hidden = this.#follow || !this.#follows;
  }

  // One word

  #key(event) {
    const words = [...this.#paragraphs.querySelectorAll(".word")];
    const at = words.indexOf(this.#current);
    const last = words.length - 1;
    const to = { ArrowLeft: at < 0 ? last : at - 1, ArrowRight: at + 1 }[event.key];
    if (to === undefined || !words[to]) return;
    event.preventDefault();
    this.#point(words[to]);
    words[to].scrollIntoView({ block: "nearest" });
  }

  /** Says how sure a word is, and when it was spoken. */
  #point(word) {
    this.#current?.classList.remove("current");
    this.#current = word;
    this.#detail.textContent = HINT;
    if (!word) return;
    word.classList.add("current");
    word.title = `${percent(word.dataset.probability)} sure`;
    const times = `${seconds(word.dataset.start)} to ${seconds(word.dataset.end)} s`;
    this.#detail.textContent = `“${word.textContent}”: ${word.title}, ${times}`;
  }

  // Taking it along

  async #copy() {
    const copied = await copy(this.#transcript.text);
    this.#say(copied ? "Copied." : "The browser did not let the page copy.");
  }

  #save(ending, { type, make }) {
    const file = new Blob([make(this.#transcript)], { type: `${type};charset=utf-8` });
    const link = document.createElement("a");
    link.href = URL.createObjectURL(file);
    link.download = `${this.#name()}.${ending}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    this.#say(`Saved ${link.download}`);
  }

  #say(sentence) {
    this.#said.textContent = sentence;
  }
}

/** The white space of a piece, and its word as an element where its probability is known. */
function nodesOf({ text, start, end, probability }) {
  if (probability === null) return [text];
  const word = document.createElement("span");
  word.className = "word";
  word.textContent = text.trim();
  Object.assign(word.dataset, { probability, start, end, sure: sureness(probability) });
  const [before, after] = text.split(word.textContent);
  return [before, word, after];
}

function sureness(probability) {
  if (probability < LOW) return "low";
  return probability < MIDDLE ? "middle" : "high";
}

/** Without a secure context there is no clipboard, but the old way. */
async function copy(text) {
  if (navigator.clipboard) {
    return navigator.clipboard.writeText(text).then(
      () => true,
      () => false,
    );
  }
  const field = document.createElement("textarea");
  field.value = text;
  field.className = "visually-hidden";
  document.body.append(field);
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  return copied;
}

export function percent(probability) {
  return `${Math.round(probability * 100)} %`;
}

/** Seconds as 1:02:03 or 2:03. */
export function minutes(time) {
  const whole = Math.floor(time);
  const hours = Math.floor(whole / 3600);
  const parts = [Math.floor(whole / 60) % 60, whole % 60];
  if (hours) parts.unshift(hours);
  return parts.map((part, i) => (i ? String(part).padStart(2, "0") : part)).join(":");
}

function seconds(time) {
  return Number(time).toFixed(2);
}
