// What the service is shown: a key that a person typed in, where it asks for one, and for sockets,
// which cannot carry it, a token that is made anew for each.
//
// The key stays in this tab: `sessionStorage` forgets it with the tab.

import { sentence } from "./notice.js";

const STORED = "whisper_serve.key";
const SUBPROTOCOL = "whisper-serve";
const TIMEOUT_MS = 10_000;
const REFUSED = 401;
const FORBIDDEN = 403;
const TOO_MANY = 429;

const NEEDED = "This service asks for a key.";
const UNKNOWN = "The service does not know this key.";
const GONE = "The service does not answer. Try again.";
const NOT_FOR_LIVE = "This key may not be used for live transcription.";

/** There is no token; `again`: there may be one in `delayS` seconds. */
export class NoToken extends Error {
  constructor(why, { again, delayS = 0 }) {
    super(why);
    this.again = again;
    this.delayS = delayS;
  }
}

export class Access {
  #check;
  #tokens;
  #form;
  #key = recall();
  #isOpen = false;
  #isKnown = false; // whether it is open, or takes the key
  #entered = null; // the promise that the form is filled in, while it is shown
  #enter = null;

  /** `check`: an address that answers whoever may use the service; `tokens`: where they are made.
   * `form`: `KeyForm`. */
  constructor({ check, tokens, form }) {
    this.#check = check;
    this.#tokens = tokens;
    this.#form = form;
    form.onKey = (key) => this.#try(key);
    form.onForget = () => this.#forget();
    form.remembers(Boolean(this.#key));
  }

  /** Waits until the service takes us, or does not answer at all. */
  async enter() {
    if (this.#isKnown) return;
    const { status } = await this.#ask(this.#key);
    if (status === REFUSED) await this.#locked(this.#key ? UNKNOWN : NEEDED);
    else if (status) this.#known(!this.#key);
  }

  /** It may be otherwise than it was: `enter` looks again. */
  doubt() {
    this.#isKnown = false;
  }

  /** Whether a request was refused for its key, or died where it might have been: a service need
   * not read a file that it refuses. */
  async locks(status) {
    if (status !== REFUSED && status !== 0) return false;
    this.doubt();
    return (await this.#ask(this.#key)).status === REFUSED;
  }

  /** Headers of a request. */
  get headers() {
    return this.#key ? { Authorization: `Bearer ${this.#key}` } : {};
  }

  /** Subprotocols of one new socket; waits for a key where one is needed. Raises `NoToken`. */
  async protocols() {
    for (;;) {
      await this.enter();
      if (this.#isOpen || !this.#key) return [];
      const { status, answer, waitS } = await this.#ask(this.#key, this.#tokens);
      if (status === 200) return [SUBPROTOCOL, `${SUBPROTOCOL}.key.${answer.token}`];
      if (status === FORBIDDEN) throw new NoToken(NOT_FOR_LIVE, { again: false });
      const why = answer?.error ?? null;
      if (status !== REFUSED) throw new NoToken(why, { again: true, delayS: waitS });
      await this.#locked(why ? sentence(why) : UNKNOWN);
    }
  }

  async #locked(why) {
    this.#keep("");
    this.#isKnown = this.#isOpen = false;
    this.#entered ??= new Promise((resolve) => (this.#enter = resolve));
    this.#form.show(why);
    await this.#entered;
  }

  /** A key that was typed in. */
  async #try(key) {
    const { status, waitS } = await this.#ask(key);
    if (status === REFUSED) this.#form.show(UNKNOWN);
    else if (status === TOO_MANY) this.#form.show(`Too many tries. Try again in ${waitS} s.`);
    else if (!status || status >= 500) this.#form.show(GONE);
    else this.#unlocked(key);
  }

  #unlocked(key) {
    this.#keep(key);
    this.#known(false);
    this.#form.hide();
    this.#enter();
    this.#entered = null;
  }

  #known(isOpen) {
    this.#isKnown = true;
    this.#isOpen = isOpen;
  }

  #forget() {
    this.#keep("");
    this.doubt();
  }

  #keep(key) {
    this.#key = key;
    this.#form.remembers(Boolean(key));
    try {
      if (key) sessionStorage.setItem(STORED, key);
      else sessionStorage.removeItem(STORED);
    } catch {
      // Storage can be forbidden; the key holds until the page is left.
    }
  }

  /** The status, 0 when nobody answered, what was answered, and how long to wait. */
  async #ask(key, tokens = null) {
    const headers = key ? { Authorization: `Bearer ${key}` } : {};
    const signal = AbortSignal.timeout(TIMEOUT_MS);
    const asked = tokens
      ? { method: "POST", body: JSON.stringify({ scopes: ["stream"] }) }
      : { method: "GET" };
    if (tokens) headers["Content-Type"] = "application/json";
    try {
      const response = await fetch(tokens ?? this.#check, { ...asked, headers, signal, cache: "no-store" });
      const waitS = Number(response.headers.get("Retry-After")) || 0;
      return { status: response.status, answer: await response.json().catch(() => null), waitS };
    } catch {
      return { status: 0, answer: null, waitS: 0 };
    }
  }
}

function recall() {
  try {
    return sessionStorage.getItem(STORED) ?? "";
  } catch {
    return "";
  }
}
