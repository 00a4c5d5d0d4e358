// The tab "Live": the microphone in, text out while it is spoken.

import { Journal } from "./journal.js";
import { Microphone, obstacle, sentenceOf } from "./microphone.js";
import { capital, say, sentence, tell, unsay } from "./notice.js";
import { StreamClient } from "./stream-client.js";
import { Transcript } from "./transcript.js";
import { minutes, percent, TranscriptView } from "./transcript-view.js";

const CONTEXT_CHARS = 300;
const QUIET_DB = -50;
const LOUD_DB = -6;
const SILENCE_S = 6;
const IDLE = "Not recording.";
const NOTE_MS = 12_000;
const TOLD = new Set(["falling_behind", "bad_samples", "draining"]);
const BUTTONS = {
  start: "Start recording",
  continue: "Go on recording",
  opening: "One moment…",
  stop: "Stop",
  abandon: "Stop waiting",
};

const byId = (id) => document.getElementById(id);

export class LivePanel {
  #url;
  #settings;
  #access;
  #view;
  #transcript = new Transcript();
  #journal = null;
  #client = null;
  #microphone = null;
  #facts = {};
  #quietFrames = 0;
  #isFull = false;
  #wasOpen = false;
  #noteTimer = null;
  #wakeLock = null;
  #button = byId("record");
  #status = byId("live-status");
  #notice = byId("live-notice");

  constructor({ url, settings, access }) {
    this.#url = url;
    this.#settings = settings;
    this.#access = access;
    this.#view = new TranscriptView(byId("live-transcript"), {
      placeholder: "What is said appears here while it is spoken.",
      follows: true,
      name: () => `transcript ${localTime(new Date())}`,
      onClear: () => this.#clear(),
    });
    settings.onChange = (changes) => this.#client?.configure(changes);
    this.#button.addEventListener("click", () => this.#press());
    window.addEventListener("beforeunload", (event) => {
      if (this.#client) event.preventDefault();
    });
    document.addEventListener("visibilitychange", () => {
      if (this.#microphone && !document.hidden) this.#stayAwake();
    });
    this.#refuse(obstacle());
  }

  #refuse(why) {
    if (!why) return;
    this.#button.disabled = true;
    say(this.#notice, "note", why);
  }

  #press() {
    const action = this.#button.dataset.does;
    if (action === "stop") this.#stop();
    else if (action === "abandon") this.#abandon();
    else if (action !== "opening") this.#start();
  }

  // A stream from its start to its end

  async #start() {
    if (!this.#settings.inOrder) return;
    unsay(this.#notice);
    this.#does("opening");
    this.#says("Asking the service…");
    await this.#access.enter();
    this.#says("The browser may ask whether this page may use the microphone.");
    try {
      this.#microphone = await Microphone.open(() => this.#lostMicrophone());
    } catch (error) {
      this.#idle(IDLE);
      say(this.#notice, "error", sentenceOf(error));
      return;
    }
    this.#stream(this.#microphone.sampleRate);
  }

  /** Goes on behind what was recorded before, if anything was. */
  #stream(sampleRate) {
    const startS = this.#journal?.endS ?? 0;
    const context = tailOf(this.#transcript.text, CONTEXT_CHARS);
    this.#journal = new Journal({ sampleRate, startS, context });
    this.#transcript.break();
    this.#isFull = this.#wasOpen = false;
    this.#client = new StreamClient({
      url: this.#url,
      access: this.#access,
      config: { ...this.#settings.live, encoding: "pcm_s16le", sample_rate: sampleRate, channels: 1 },
      journal: this.#journal,
      on: {
        state: (name, detail) => this.#state(name, detail),
        message: (message) => this.#message(message),
      },
    });
    this.#recording(true);
    this.#does("stop");
    this.#says("Connecting. What you say is kept meanwhile.");
    this.#client.start();
    this.#microphone.begin((samples, level) => this.#frame(samples, level));
  }

  async #stop() {
    this.#does("abandon");
    this.#says("The last words are on their way…");
    await this.#closeMicrophone();
    this.#client?.end();
  }

  async #abandon() {
    this.#client.abandon();
    const waited = this.#journal.endS - (this.#journal.resume?.committed_until ?? 0);
    await this.#finish("Stopped.");
    say(this.#notice, "note", `The last ${waited.toFixed(1)} s were not transcribed.`);
  }

  async #finish(sentenceSaid) {
    this.#client = null;
    await this.#closeMicrophone();
    this.#transcript.pending = "";
    this.#view.show(this.#transcript);
    this.#fact("Not final yet", null);
    this.#idle(sentenceSaid);
  }

  #idle(sentenceSaid) {
    this.#does(this.#journal ? "continue" : "start");
    this.#says(sentenceSaid);
  }

  async #closeMicrophone() {
    const microphone = this.#microphone;
    this.#microphone = null;
    await microphone?.stop();
    this.#recording(false);
  }

  async #lostMicrophone() {
    await this.#stop();
    say(this.#notice, "error", "The microphone went away. What was said until then is transcribed.");
  }

  // What comes from the microphone

  #frame(samples, level) {
    const kept = this.#journal.append(samples);
    if (kept) this.#client?.pump();
    if (kept === this.#isFull) this.#full(!kept);
    byId("elapsed").textContent = minutes(this.#journal.endS);
    this.#showLevel(level, samples.length);
  }

  #full(isFull) {
    this.#isFull = isFull;
    const lost = `${this.#journal.refusedS.toFixed(1)} s of speech could not be kept.`;
    const loses = "More than five minutes wait to be sent. What is said now is lost!";
    say(this.#notice, "error", isFull ? loses : lost);
  }

  #showLevel(level, length) {
    const meter = byId("level");
    meter.querySelector(".fill").style.transform = `scaleX(${Math.max(0, 1 + level / 60)})`;
    const name = level < QUIET_DB ? "quiet" : level > LOUD_DB ? "too loud" : "good";
    const says = meter.querySelector(".says");
    if (says.textContent !== `Level: ${name}`) says.textContent = `Level: ${name}`;
    meter.dataset.level = name;
    this.#quietFrames = level <= -90 ? this.#quietFrames + 1 : 0;
    if (this.#quietFrames * length > SILENCE_S * this.#microphone?.sampleRate) this.#silent();
  }

  #silent() {
    this.#quietFrames = 0;
    this.#note("The microphone gives no sound at all. Is it muted?");
  }

  // What comes from the client

  #state(name, detail) {
    const stopping = this.#microphone === null;
    switch (name) {
      case "open":
        this.#wasOpen = true;
        this.#transcript.pending = "";
        return this.#says(stopping ? "The last words are on their way…" : "Listening.");
      case "changed":
        return this.#says("Listening, with the new settings.");
      case "lost":
        return this.#lost(detail);
      case "done":
        return this.#finish("Finished.");
      case "failed":
        say(this.#notice, "error", sentence(detail.why));
        return this.#finish("Stopped.");
    }
  }

  #lost({ why, delayS }) {
    this.#transcript.pending = "";
    this.#view.show(this.#transcript);
    const reason = capital(why ?? (this.#wasOpen ? "Connection lost" : "No connection"));
    const does = this.#wasOpen ? "resuming… Nothing is lost: what" : "trying again… What";
    const when = delayS >= 2 ? ` (again in ${Math.round(delayS)} s)` : "";
    this.#says(`${reason}, ${does} you say is kept${when}.`);
  }

  #message(message) {
    switch (message.type) {
      case "partial":
        this.#transcript.pending = message.text;
        return this.#view.show(this.#transcript);
      case "final":
        return this.#final(message);
      case "ack":
        return this.#showLag(message);
      case "warning":
        return TOLD.has(message.code) && this.#note(sentence(message.message));
      case "error":
        return message.fatal || say(this.#notice, "error", sentence(message.message));
    }
  }

  #final(message) {
    const { task } = this.#settings.live;
    this.#transcript.hear(message, task === "translate" ? "en" : message.language);
    this.#view.show(this.#transcript);
    const announcer = byId("announcer");
    announcer.lang = (task === "translate" ? "en" : message.language) ?? "";
    announcer.textContent = message.text.trim();
    if (message.language) {
      const sure = percent(message.language_probability);
      this.#fact("Language", `${this.#transcript.languageName} (${sure})`);
    }
    this.#fact("Processing time", `${message.processing_time.toFixed(2)} s`);
    this.#fact("Words", String(this.#transcript.pieces.length));
    this.#showLag(message);
  }

  // What is shown

  #showLag({ committed_until: committedUntil }) {
    this.#fact("Not final yet", `${(this.#journal.endS - committedUntil).toFixed(1)} s`);
  }

  #fact(name, value) {
    this.#facts[name] = value;
    tell(byId("live-facts"), Object.entries(this.#facts));
  }

  #note(text) {
    if (this.#notice.dataset.kind === "error" && !this.#notice.hidden) return;
    say(this.#notice, "note", text);
    clearTimeout(this.#noteTimer);
    this.#noteTimer = setTimeout(() => {
      if (this.#notice.dataset.kind === "note") unsay(this.#notice);
    }, NOTE_MS);
  }

  #does(action) {
    this.#button.dataset.does = action;
    this.#button.querySelector(".says").textContent = BUTTONS[action];
  }

  #says(text) {
    this.#status.textContent = text;
  }

  #recording(on) {
    byId("level").hidden = !on;
    byId("recording").hidden = !on;
    byId("tab-live").dataset.recording = on;
    if (on) this.#stayAwake();
    else this.#wakeLock?.release();
  }

  /** A phone that falls asleep takes the microphone along. */
  async #stayAwake() {
    this.#wakeLock = (await navigator.wakeLock?.request("screen").catch(() => null)) ?? null;
  }

  #clear() {
    this.#transcript = new Transcript();
    this.#facts = {};
    tell(byId("live-facts"), []);
    if (this.#client) this.#client.reset();
    else {
      this.#journal = null;
      byId("elapsed").textContent = minutes(0);
      this.#idle(IDLE);
    }
    this.#view.show(this.#transcript);
  }
}

/** The end of a text, without half a character at its beginning. */
function tailOf(text, chars) {
  return text.slice(-chars).replace(/^[\udc00-\udfff]/, "");
}

function localTime(date) {
  const part = (value) => String(value).padStart(2, "0");
  const day = [date.getFullYear(), part(date.getMonth() + 1), part(date.getDate())].join("-");
  return `${day} ${part(date.getHours())}.${part(date.getMinutes())}`;
}
