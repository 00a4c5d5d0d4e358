// A live stream over a WebSocket that mends itself: `docs/protocol.md`, from the client's side.

import { afterClose, Pace, TOO_FAST } from "./reconnect.js";

const TICK_MS = 100;
const ANSWER_LIMIT_S = 15; // acks come every 2 s while audio flows
const END_LIMIT_S = 120;
const MAX_BUFFERED_BYTES = 1 << 20;
const LOST = 1006;

/**
 * Sends a journal's audio and gives what comes back to `on`:
 *
 * - `state(name, detail)`: "open", "lost" {why, delayS}, "changed"
 *   (settings that are in force now), "done", "failed" {why}
 * - `message(message)`: every message of the server
 *
 * Each message that settles audio goes to the journal first, so a connection that is lost
 * right behind it repeats nothing.
 */
export class StreamClient {
  #url;
  #journal;
  #on;
  #rate;
  #config;
  #changes = {};
  #pace = new Pace();
  #socket = null;
  #ready = false;
  #ending = false;
  #endSent = false;
  #attempt = 0;
  #fault = null;
  #sentAt = 0;
  #unansweredSince = null;
  #idleS = 60;
  #timer = null;
  #retry = null;
  #online = () => this.#retryNow();

  constructor({ url, config, journal, on }) {
    this.#url = url;
    this.#config = config;
    this.#rate = config.sample_rate;
    this.#journal = journal;
    this.#on = on;
  }

  start() {
    window.addEventListener("online", this.#online);
    this.#timer = setInterval(() => this.#tick(), TICK_MS);
    this.#connect();
  }

  /** There may be new audio in the journal. */
  pump() {
    while (this.#maySend()) {
      const samples = this.#journal.take();
      if (!samples) break;
      this.#pace.sent(samples.length / this.#rate);
      this.#socket.send(samples);
      this.#sent();
    }
    if (this.#ready && this.#ending && !this.#endSent && this.#journal.waitingS === 0) {
      this.#endSent = true;
      this.#send({ type: "end" });
    }
  }

  /** Settings from here on; they hold for a later connection too. */
  configure(changes) {
    Object.assign(this.#changes, changes);
    if (this.#ready && !this.#endSent) this.#send({ type: "config", ...changes });
  }

  /** Nothing that was said until now will become text any more. */
  reset() {
    if (this.#endSent) return;
    if (this.#ready) {
      this.#send({ type: "reset" });
      this.#journal.forgetSent();
      return;
    }
    // A connection that is being made was told an older place to go on from.
    this.#journal.forgetAll();
    this.#forget();
    clearTimeout(this.#retry);
    this.#connect();
  }

  /** No more audio will come: "done" follows when all of it is text. */
  end() {
    this.#ending = true;
    this.pump();
  }

  /** Ends without waiting for anything. */
  abandon() {
    this.#close();
  }

  // One connection

  #connect() {
    this.#retry = null;
    const socket = new WebSocket(this.#url);
    this.#socket = socket;
    this.#ready = this.#endSent = false;
    this.#unansweredSince = now();
    socket.onopen = () => this.#opened();
    socket.onmessage = ({ data }) => this.#heard(JSON.parse(data));
    socket.onclose = ({ code }) => this.#closed(code);
  }

  #opened() {
    const resume = this.#journal.resume;
    this.#send({ ...this.#config, ...this.#changes, ...(resume && { resume }) });
  }

  #heard(message) {
    this.#unansweredSince = null;
    this.#judge(message);
    this.#on.message(message);
    if (message.type === "done") this.#finish();
    else this.pump();
  }

  #finish() {
    this.#close();
    this.#on.state("done");
  }

  #judge(message) {
    if (message.resume) {
      this.#journal.settle(message.resume);
      this.#attempt = 0;
    }
    switch (message.type) {
      case "ready":
        return this.#accepted(message);
      case "warning":
        if (message.code === "client_too_fast") this.#pace.slow(now());
        return;
      case "error":
        // A setting that was refused must not be in the next configuration.
        if (message.code === "invalid_parameter") this.#changes = {};
        if (message.fatal) this.#fault = message.message;
    }
  }

  #accepted({ config, limits }) {
    this.#config = config;
    this.#changes = {};
    this.#pace.limit(limits);
    this.#idleS = limits.idle_timeout_s || this.#idleS;
    if (this.#ready) {
      this.#on.state("changed");
      return;
    }
    this.#ready = true;
    this.#journal.rewind();
    this.#pace.restart(now());
    this.#on.state("open");
  }

  #closed(code) {
    this.#forget();
    if (code === TOO_FAST) this.#pace.slow(now());
    const { again, delayS, why } = afterClose(code, this.#attempt);
    const reason = this.#fault ?? why;
    this.#fault = null;
    if (!again) {
      this.#close();
      this.#on.state("failed", { why: reason });
      return;
    }
    this.#attempt += 1;
    this.#retry = setTimeout(() => this.#connect(), delayS * 1000);
    this.#on.state("lost", { why: reason, delayS });
  }

  #forget() {
    const socket = this.#socket;
    this.#socket = null;
    this.#ready = false;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
  }

  #close() {
    clearInterval(this.#timer);
    clearTimeout(this.#retry);
    window.removeEventListener("online", this.#online);
    this.#forget();
  }

  #retryNow() {
    if (this.#retry === null) return;
    clearTimeout(this.#retry);
    this.#connect();
  }

  // The clock

  #tick() {
    if (!this.#socket) return;
    if (this.#unansweredSince !== null && now() - this.#unansweredSince > this.#patienceS()) {
      this.#closed(LOST);
      return;
    }
    this.pump();
    const quietS = now() - this.#sentAt;
    if (this.#ready && !this.#endSent && quietS > this.#idleS / 3) this.#send({ type: "keepalive" });
  }

  /** How long the server may leave us without an answer: connections can die silently. */
  #patienceS() {
    return this.#endSent ? END_LIMIT_S : ANSWER_LIMIT_S;
  }

  #maySend() {
    return (
      this.#ready &&
      !this.#endSent &&
      this.#socket.readyState === WebSocket.OPEN &&
      this.#socket.bufferedAmount < MAX_BUFFERED_BYTES &&
      this.#pace.allows(now(), this.#journal.unsettledS)
    );
  }

  #send(message) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return;
    this.#socket.send(JSON.stringify(message));
    this.#sent();
  }

  #sent() {
    this.#sentAt = now();
    this.#unansweredSince ??= this.#sentAt;
  }
}

function now() {
  return performance.now() / 1000;
}
