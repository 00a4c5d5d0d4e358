// The microphone, as frames of 16-bit samples.

import { Decimator, factorFor, levelDb, toInt16 } from "./pcm.js";

const WANTED_RATE = 16_000;
const FRAME_S = 0.1;
const STOP_LIMIT_MS = 1_000;

const SENTENCES = {
  NotAllowedError:
    "The browser does not let this page use the microphone. Allow it beside the address, then start again.",
  NotFoundError: "There is no microphone. Connect one, then start again.",
  NetworkError: "The service does not answer, so the page cannot record. Try again in a moment.",
  NotReadableError: "The microphone cannot be read. Another program may be using it.",
};

/** Why no microphone can be had here at all, as a sentence; null when one may be. */
export function obstacle() {
  if (!window.isSecureContext) {
    const port = location.port || "80";
    return (
      "Browsers give the microphone only to pages from https or from localhost. " +
      `Open this page over https, or forward the port (ssh -L ${port}:localhost:${port} …) ` +
      `and open http://localhost:${port}/. Files can be transcribed here all the same.`
    );
  }
  if (!navigator.mediaDevices?.getUserMedia || !window.AudioWorkletNode) {
    return "This browser cannot record in a page. Files can be transcribed all the same.";
  }
  return null;
}

/** What went wrong when the microphone was opened, as a sentence. */
export function sentenceOf(error) {
  return SENTENCES[error.name] ?? `The microphone cannot be used: ${error.message}`;
}

export class Microphone {
  #stream;
  #context;
  #source;
  #node;
  #stopped;

  /** Asks for the microphone. `onLost()` is called when the device goes away. */
  static async open(onLost) {
    const stream = await navigator.mediaDevices.getUserMedia({
      // Echo and noise filters cut words; only the level is worth correcting.
      audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: true },
    });
    const microphone = new Microphone();
    microphone.#stream = stream;
    try {
      await microphone.#connect();
    } catch (error) {
      await microphone.#release();
      throw error;
    }
    for (const track of stream.getTracks()) track.onended = onLost;
    return microphone;
  }

  async #connect() {
    this.#source = this.#sourceAtWantedRate() ?? this.#sourceAtOwnRate();
    const context = this.#context;
    await context.audioWorklet.addModule(new URL("pcm-worklet.js", import.meta.url)).catch(() => {
      throw new DOMException("the worklet was not loaded", "NetworkError");
    });
    this.sampleRate = Math.round(context.sampleRate / factorFor(context.sampleRate));
    this.#node = new AudioWorkletNode(context, "pcm-worklet", {
      numberOfOutputs: 0,
      processorOptions: { frameLength: Math.round(context.sampleRate * FRAME_S) },
    });
    // Phones suspend a context for a call, and do not wake it up again.
    context.onstatechange = () => {
      if (!["running", "closed"].includes(context.state)) context.resume().catch(() => {});
    };
    await context.resume();
  }

  /** From here on `onFrame(samples, levelDb)` gets Int16Array frames of about 100 ms. */
  begin(onFrame) {
    const decimator = new Decimator(factorFor(this.#context.sampleRate));
    this.#stopped = new Promise((resolve) => {
      this.#node.port.onmessage = ({ data }) => {
        if (data === null) resolve();
        else give(decimator.push(data), onFrame);
      };
    });
    this.#source.connect(this.#node);
  }

  /** The browser resamples; null where it refuses to (Firefox). */
  #sourceAtWantedRate() {
    try {
      this.#context = new AudioContext({ sampleRate: WANTED_RATE });
      return this.#context.createMediaStreamSource(this.#stream);
    } catch {
      this.#context?.close();
      return null;
    }
  }

  #sourceAtOwnRate() {
    this.#context = new AudioContext();
    return this.#context.createMediaStreamSource(this.#stream);
  }

  /** Gives the microphone back. When this resolves `onFrame` has had the last sample. */
  async stop() {
    const late = new Promise((resolve) => setTimeout(resolve, STOP_LIMIT_MS));
    this.#node.port.postMessage("stop");
    await Promise.race([this.#stopped, late]);
    await this.#release();
  }

  async #release() {
    for (const track of this.#stream.getTracks()) {
      track.onended = null;
      track.stop();
    }
    if (this.#context && this.#context.state !== "closed") {
      this.#context.onstatechange = null;
      await this.#context.close();
    }
  }
}

function give(samples, onFrame) {
  if (samples.length) onFrame(toInt16(samples), levelDb(samples));
}
