// The audio of a stream that is not settled yet, and where to go on when the connection is lost.
// It knows no socket and no clock.

const CLOSE_S = 0.05; // a server that resamples is some samples behind

export class Journal {
  #rate;
  #maxSamples;
  #frames = []; // {start: index of the first sample in the stream, samples: Int16Array}
  #start; // of the oldest sample that is kept
  #end; // behind the newest one
  #next; // the sample that is to be sent next
  #resume;
  #refused = 0;
  #forgottenS = 0;

  /** `startS` is the stream's clock at the first sample, `context` the text before it;
   * `maxS` is how many seconds are kept at most. */
  constructor({ sampleRate, startS = 0, context = "", maxS = 300 }) {
    this.#rate = sampleRate;
    this.#maxSamples = maxS * sampleRate;
    this.#start = this.#end = this.#next = this.#indexOf(startS);
    this.#resume = startS > 0 ? { committed_until: startS, context } : null;
  }

  /** Takes samples in (Int16Array). False when there is no room: they are not kept then. */
  append(samples) {
    if (this.#end - this.#start + samples.length > this.#maxSamples) {
      this.#refused += samples.length;
      return false;
    }
    this.#frames.push({ start: this.#end, samples });
    this.#end += samples.length;
    return true;
  }

  /** Takes the newest resume object in, and drops the audio that it does not need. */
  settle(resume) {
    if (resume.committed_until < this.#forgottenS - CLOSE_S) return;
    this.#resume = resume;
    const needed = this.#indexOf(resume.audio_from ?? resume.committed_until);
    while (this.#frames.length && endOf(this.#frames[0]) <= needed) this.#frames.shift();
    this.#start = this.#frames[0]?.start ?? this.#end;
    this.#next = Math.max(this.#next, this.#start);
  }

  /** What was sent will not become text any more, because a reset was sent behind it. */
  forgetSent() {
    const nowS = this.#next / this.#rate;
    this.settle({ committed_until: nowS, context: "" });
    this.#forgottenS = nowS;
  }

  /** Nothing that was recorded will become text any more. */
  forgetAll() {
    this.#next = this.#end;
    this.forgetSent();
  }

  /** Everything that is kept, from where the resume object says, is to be sent once more. */
  rewind() {
    const from = this.#resume ? (this.#resume.audio_from ?? this.#resume.committed_until) : 0;
    this.#next = Math.min(this.#end, Math.max(this.#start, this.#indexOf(from)));
  }

  /** The next samples to send, or null. */
  take() {
    const frame = this.#frames.find((candidate) => endOf(candidate) > this.#next);
    if (!frame) return null;
    const samples = frame.samples.subarray(this.#next - frame.start);
    this.#next = endOf(frame);
    return samples;
  }

  /** The `resume` of the next connection; null begins at zero. */
  get resume() {
    return this.#resume;
  }

  /** The stream's clock behind the newest sample. */
  get endS() {
    return this.#end / this.#rate;
  }

  /** Seconds that were sent and are not committed. */
  get unsettledS() {
    return Math.max(0, this.#next / this.#rate - (this.#resume?.committed_until ?? 0));
  }

  /** Seconds that wait to be sent. */
  get waitingS() {
    return (this.#end - this.#next) / this.#rate;
  }

  /** Seconds that there was no room for. */
  get refusedS() {
    return this.#refused / this.#rate;
  }

  #indexOf(seconds) {
    return Math.round(seconds * this.#rate);
  }
}

function endOf(frame) {
  return frame.start + frame.samples.length;
}
