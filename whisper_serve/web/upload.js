// `POST /transcribe` with the progress of the upload, which fetch does not tell.

import { sentence } from "./notice.js";

export class UploadFailed extends Error {}

export class Upload {
  #request = new XMLHttpRequest();

  /** `onProgress(share, sentBytes)`, then `onSent()` once when all is there. */
  constructor(url, { onProgress, onSent }) {
    this.#request.open("POST", url);
    this.#request.setRequestHeader("Accept", "application/json");
    this.#request.upload.onprogress = ({ loaded, total }) => onProgress(loaded / total, loaded);
    this.#request.upload.onload = onSent;
  }

  /** The answer of the service; null when it was cancelled. Raises `UploadFailed`. */
  send(file, fields) {
    const form = new FormData();
    for (const [name, value] of Object.entries(fields)) form.append(name, value);
    form.append("audio_file", file);
    return new Promise((resolve, reject) => {
      const request = this.#request;
      request.onload = () => this.#judge(resolve, reject);
      request.onabort = () => resolve(null);
      request.onerror = () => {
        const reason = "the connection broke, or the service refused the upload while it came in";
        reject(new UploadFailed(`The file did not get through: ${reason}.`));
      };
      request.send(form);
    });
  }

  cancel() {
    this.#request.abort();
  }

  #judge(resolve, reject) {
    const { status, responseText } = this.#request;
    const answer = parsed(responseText);
    if (status === 200 && answer?.success) resolve(answer);
    else reject(new UploadFailed(this.#sentence(status, answer)));
  }

  #sentence(status, answer) {
    if (!answer?.error) return `The service answered with status ${status}.`;
    const wait = this.#request.getResponseHeader("Retry-After");
    const again = wait ? ` Try again in ${wait} s.` : "";
    return `${sentence(answer.error)}${again} (${answer.code}, request ${answer.request_id})`;
  }
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
