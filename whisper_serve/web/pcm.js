// Samples as numbers: 16-bit PCM, level, and sample rates above what the service takes.

export const MAX_RATE = 48_000;

/** Float samples (full scale ±1) as 16-bit ones: rounded, and clamped to what 16 bits hold.
 * Typed arrays have the byte order of the machine, and browsers run on little-endian ones. */
export function toInt16(samples) {
  const out = new Int16Array(samples.length);
  for (let i = 0; i < samples.length; i += 1) {
    out[i] = Math.max(-32_768, Math.min(32_767, Math.round(samples[i] * 32_768)));
  }
  return out;
}

/** Root mean square in dB of full scale; -100 is silence. */
export function levelDb(samples) {
  let sum = 0;
  for (const sample of samples) sum += sample * sample;
  const mean = samples.length ? sum / samples.length : 0;
  return Math.max(-100, 10 * Math.log10(mean + 1e-10));
}

/** The smallest whole factor that brings `rate` (Hz) down to what the service takes. */
export function factorFor(rate) {
  return Math.ceil(rate / MAX_RATE);
}

/** Keeps every `factor`-th sample of a stream, behind a low pass that cuts at the new Nyquist
 * frequency: a sinc of 16 zero crossings a side under a Hann window. */
export class Decimator {
  #taps;
  #tail;
  #skip = 0;

  constructor(factor) {
    this.factor = factor;
    this.#taps = factor === 1 ? Float64Array.of(1) : lowPass(factor);
    this.#tail = new Float32Array(this.#taps.length - 1);
  }

  push(samples) {
    const input = new Float32Array(this.#tail.length + samples.length);
    input.set(this.#tail);
    input.set(samples, this.#tail.length);
    const out = [];
    let at = this.#skip;
    for (; at + this.#taps.length <= input.length; at += this.factor) out.push(this.#sum(input, at));
    this.#skip = at - samples.length;
    this.#tail = input.slice(samples.length);
    return Float32Array.from(out);
  }

  #sum(input, at) {
    let sum = 0;
    for (let i = 0; i < this.#taps.length; i += 1) sum += this.#taps[i] * input[at + i];
    return sum;
  }
}

function lowPass(factor) {
  const side = 16 * factor;
  const taps = Float64Array.from({ length: 2 * side + 1 }, (_, i) => {
    const x = (i - side) / factor;
    const sinc = x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
    return sinc * (0.5 + 0.5 * Math.cos((Math.PI * (i - side)) / (side + 1)));
  });
  const sum = taps.reduce((a, b) => a + b);
  return taps.map((tap) => tap / sum);
}
