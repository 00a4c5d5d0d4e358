// Runs in the audio thread: the microphone's blocks of 128 samples become frames.

/** Posts Float32Array frames of `frameLength` mono samples; asked to stop, it posts what is
 * left and then null. */
class PcmWorklet extends AudioWorkletProcessor {
  #frame;
  #filled = 0;
  #stopped = false;

  constructor({ processorOptions }) {
    super();
    this.#frame = new Float32Array(processorOptions.frameLength);
    this.port.onmessage = () => this.#stop();
  }

  process([channels]) {
    const length = channels[0]?.length ?? 0;
    for (let i = 0; i < length && !this.#stopped; i += 1) {
      let sum = 0;
      for (const channel of channels) sum += channel[i];
      this.#frame[this.#filled] = sum / channels.length;
      this.#filled += 1;
      if (this.#filled === this.#frame.length) this.#post();
    }
    return !this.#stopped;
  }

  #post() {
    const frame = this.#frame.slice(0, this.#filled);
    this.port.postMessage(frame, [frame.buffer]);
    this.#filled = 0;
  }

  #stop() {
    if (this.#filled) this.#post();
    this.#stopped = true;
    this.port.postMessage(null);
  }
}

registerProcessor("pcm-worklet", PcmWorklet);
