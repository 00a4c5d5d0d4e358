// What to do when a stream's connection has ended. It knows no socket and no clock.

const FIRST_DELAY_S = 0.5;
const BUSY_DELAY_S = 2;
const MAX_DELAY_S = 15;

const BUSY = 1013;
const DRAINING = 1001;
const RESTARTING = 1012;
const IDLE = 4408;
export const TOO_FAST = 4429;

const FINAL = {
  1002: "The service does not speak this page's protocol. Reload the page.",
  1003: "The service does not take this kind of audio.",
  1008: "The service refused the settings.",
  1009: "The service refused a frame of audio as too big.",
};

const REASONS = {
  [BUSY]: "The service is busy",
  [DRAINING]: "The service restarts",
  [RESTARTING]: "The service restarts",
  [IDLE]: "The service heard nothing for too long",
  [TOO_FAST]: "The service could not keep up",
  1011: "The service failed",
};

/** After a close with `code`, the `attempt`-th in a row (from 0): whether to connect again,
 * after how many seconds, and why, where that is known. `random` gives 0 to 1, so
 * that the clients of a service that restarts do not all come at the same moment. */
export function afterClose(code, attempt, random = Math.random) {
  if (code in FINAL) return { again: false, delayS: 0, why: FINAL[code] };
  const first = code === BUSY ? BUSY_DELAY_S : FIRST_DELAY_S;
  const delayS = Math.min(MAX_DELAY_S, first * 2 ** attempt) * (0.75 + 0.5 * random());
  const soon = [DRAINING, RESTARTING].includes(code) && attempt === 0;
  return { again: true, delayS: soon ? 0 : delayS, why: REASONS[code] ?? null };
}

/** How much may be sent. Up to half of the service's backlog may be unsettled; a service that
 * found this too fast gets audio as fast as it is spoken. Times in seconds. */
export class Pace {
  #maxUnsettledS = Infinity;
  #sinceS = null;
  #sentS = 0;

  /** The `limits` of `ready`. */
  limit({ max_backlog_s: maxBacklogS }) {
    if (maxBacklogS) this.#maxUnsettledS = maxBacklogS / 2;
  }

  /** From here on as fast as it is spoken. */
  slow(nowS) {
    this.#sinceS = nowS;
    this.#sentS = 0;
  }

  /** A new connection counts anew. */
  restart(nowS) {
    if (this.#sinceS !== null) this.slow(nowS);
  }

  allows(nowS, unsettledS) {
    if (unsettledS >= this.#maxUnsettledS) return false;
    return this.#sinceS === null || this.#sentS <= nowS - this.#sinceS;
  }

  sent(seconds) {
    this.#sentS += seconds;
  }
}
