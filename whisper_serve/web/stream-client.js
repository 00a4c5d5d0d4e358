// A live stream over a WebSocket that mends itself: `docs/protocol.md`, from the client's side.

import { afterClose, Pace, TOO_FAST } from "./reconnect.js";

const TICK_MS = 100;
const ANSWER_LIMIT_S = 15; // acks come every 2 s while audio flows
const END_LIMIT_S = 120;
const MAX_BUFFERED_BYTES = 1 << 20;
const LOST = 1006;
const GOING_AWAY = 1001;

/**
 * Sends a journal's audio over sockets that show what `access` gives them, and gives what comes
 * back to `on`:
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
  #access;
  #journal;
  #on;
  #rate;
  #config;
  #changes = {};
  #pace = new Pace();
  #socket = null;
  #dialing = null; // what a socket that is not there yet is waited for with
  #ready = false;
  #draining = false;
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

  constructor({ url, access, config, journal, on }) {
    this.#url = url;
    this.#access = access;
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

  async #connect() {
    this.#retry = null;
    const dialing = (this.#dialing = {});
    let protocols, refused;
    try {
      protocols = await this.#access.protocols();
    } catch (error) {
      refused = error;
    }
    if (this.#dialing !== dialing) return;
    if (refused) this.#refused(refused);
    else this.#open(protocols);
  }

  #open(protocols) {
    const socket = new WebSocket(this.#url, protocols);
    this.#socket = socket;
    this.#ready = this.#endSent = this.#draining = false;
    this.#unansweredSince = now();
    let wasOpen = false;
    socket.onopen = () => {
      wasOpen = true;
      this.#opened();
    };
    socket.onmessage = ({ data }) => this.#heard(JSON.parse(data));
    socket.onclose = ({ code }) => {
      // A browser does not tell why a service let nobody in.
      if (!wasOpen) this.#access.doubt();
      this.#closed(this.#draining && code === LOST ? GOING_AWAY : code);
    };
  }

  /** There is no token to open a socket with. */
  #refused({ message, again, delayS }) {
    if (again) {
      this.#later(message, Math.max(delayS, afterClose(LOST, this.#attempt).delayS));
      return;
    }
    this.#close();
    this.#on.state("failed", { why: message });
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
    else if (this.#draining && !this.#endSent) this.#leave();
    else this.pump();
  }

  /** Goes on elsewhere now: what a service settles in haste when it stops may end within a word.
   * All that was sent, it may bring to its end. */
  #leave() {
    this.#closed(GOING_AWAY);
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
        if (message.code === "draining") this.#draining = true;
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
    this.#later(reason, delayS);
  }

  #later(why, delayS) {
    this.#attempt += 1;
    this.#retry = setTimeout(() => this.#connect(), delayS * 1000);
    this.#on.state("lost", { why, delayS });
  }

  #forget() {
    const socket = this.#socket;
    this.#socket = this.#dialing = null;
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
