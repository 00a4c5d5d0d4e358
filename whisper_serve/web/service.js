// Whether the service is ready, as it says of itself.

const READY_MS = 60_000;
const UNREADY_MS = 5_000;

/** Asks `url` for as long as the page is open, and writes the answer into `chip`. */
export async function watchService(url, chip) {
  const { state, sentence } = document.hidden ? {} : await ask(url);
  if (state) {
    chip.dataset.state = state;
    const says = chip.querySelector(".says");
    if (says.textContent !== sentence) says.textContent = sentence;
  }
  setTimeout(() => watchService(url, chip), state === "ready" ? READY_MS : UNREADY_MS);
}

async function ask(url) {
  try {
    const answer = await (await fetch(url, { signal: AbortSignal.timeout(10_000) })).json();
    if (answer.status !== "healthy") return { state: "unready", sentence: `Not ready: ${answer.reason}` };
    const device = { cpu: "CPU", cuda: "GPU" }[answer.device] ?? answer.device;
    return { state: "ready", sentence: `Ready: ${answer.model} on ${device}` };
  } catch {
    return { state: "unready", sentence: "The service does not answer" };
  }
}
