// What a person can choose: read from the form, checked, and remembered in this browser.

import { LANGUAGES } from "./languages.js";

const KEY = "whisper_serve.settings";
const LIVE = ["language", "task", "policy", "chunk_duration", "overlap", "use_context", "interim"];
const TEXTS = ["prompt", "hotwords"];
const POLICY_HINTS = {
  chunk: "Audio is decoded in chunks, one after the other.",
  agreement: "Decoded about every second; final is what two decodes in a row agree on.",
  utterance: "Final when the speaker pauses. The calmest to read.",
};

export class Settings {
  #form;
  #error;
  #last;
  #onChange = () => {};

  constructor(form) {
    this.#form = form;
    this.#error = form.querySelector("[role=alert]");
    this.#addLanguages();
    this.#recall();
    this.#last = this.live;
    this.#check();
    form.addEventListener("change", () => this.#changed());
    form.addEventListener("submit", (event) => event.preventDefault());
    form.querySelector("#defaults").addEventListener("click", () => {
      form.reset();
      this.#changed();
    });
  }

  /** `listener(changes)` gets what is different for a stream, when all is in order. */
  set onChange(listener) {
    this.#onChange = listener;
  }

  /** The configuration of a stream, without its audio format. */
  get live() {
    const names = [...LIVE, "vad", ...TEXTS];
    return Object.fromEntries(names.map((name) => [name, this.#value(name)]));
  }

  /** The fields of `POST /transcribe`. Without `use_context` the service decides. */
  get upload() {
    const { language, task, prompt, hotwords, use_context: useContext } = this.live;
    const fields = { language: language ?? "", task, prompt, hotwords };
    return useContext ? fields : { ...fields, use_context: "false" };
  }

  /** Shows what concerns "live" or "file" only. */
  show(kind) {
    for (const element of this.#form.querySelectorAll("[data-only]")) {
      element.hidden = element.dataset.only !== kind;
    }
  }

  /** Whether everything can be sent; otherwise it is said what cannot, and shown. */
  get inOrder() {
    const faulty = this.#check();
    if (!faulty) return true;
    this.#form.querySelector("details").open = true;
    faulty.focus();
    return false;
  }

  #value(name) {
    const { type, value, checked } = this.#form.elements[name];
    if (type === "checkbox") return checked;
    if (type === "number") return value === "" ? NaN : Number(value);
    return name === "language" ? value || null : value.trim();
  }

  #changed() {
    this.#remember();
    if (this.#check()) return;
    const live = this.live;
    const changes = Object.entries(live).filter(([name, value]) => value !== this.#last[name]);
    this.#last = live;
    if (changes.length) this.#onChange(Object.fromEntries(changes));
  }

  /** The field that is wrong, or null. */
  #check() {
    const { chunk_duration: chunk, overlap, policy } = this.#form.elements;
    document.getElementById("policy-hint").textContent = POLICY_HINTS[policy.value];
    const faults = [
      [chunk, within(chunk, 1, 20) ? "" : "A chunk is 1 to 20 seconds long."],
      [
        overlap,
        within(overlap, 0.1, Number(chunk.value) - 1e-9)
          ? ""
          : "The overlap is at least 0.1 seconds and shorter than a chunk.",
      ],
    ];
    for (const [field, fault] of faults) field.setAttribute("aria-invalid", String(Boolean(fault)));
    const [faulty, fault] = faults.find(([, sentence]) => sentence) ?? [null, ""];
    this.#error.hidden = !fault;
    this.#error.textContent = fault;
    return faulty;
  }

  #addLanguages() {
    const names = Object.entries(LANGUAGES).sort(([, a], [, b]) => a.localeCompare(b, "en"));
    for (const [code, name] of names) this.#form.elements.language.add(new Option(name, code));
  }

  #remember() {
    const values = [...this.#form.elements]
      .filter(({ name }) => name)
      .map(({ name, type, value, checked }) => [name, type === "checkbox" ? checked : value]);
    try {
      localStorage.setItem(KEY, JSON.stringify(Object.fromEntries(values)));
    } catch {
      // Storage can be full or forbidden; the settings hold all the same.
    }
  }

  #recall() {
    let values = {};
    try {
      values = JSON.parse(localStorage.getItem(KEY)) ?? {};
    } catch {
      return;
    }
    for (const [name, value] of Object.entries(values)) {
      const field = this.#form.elements[name];
      if (field?.type === "checkbox") field.checked = value;
      else if (field) field.value = value;
      if (field?.selectedIndex === -1) field.selectedIndex = 0;
    }
  }
}

function within({ value }, least, most) {
  return value !== "" && Number(value) >= least && Number(value) <= most;
}
