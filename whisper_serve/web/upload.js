// `POST /transcribe` with the progress of the upload, which fetch does not tell.

import { sentence } from "./notice.js";

/** `status`: what the service answered with, 0 when it did not. */
export class UploadFailed extends Error {
  constructor(sentenceSaid, status) {
    super(sentenceSaid);
    this.status = status;
  }
}

export class Upload {
  #url;
  #on;
  #request = null;
  #cancel;
  #isCancelled = false;
  /** Resolves when it is cancelled. */
  cancelled = new Promise((resolve) => (this.#cancel = resolve));

  /** `onProgress(share, sentBytes)`, then `onSent()` once when all is there. */
  constructor(url, { onProgress, onSent }) {
    this.#url = url;
    this.#on = { onProgress, onSent };
  }

  /** The answer of the service; null when it was cancelled. Raises `UploadFailed`, behind which it
   * may be sent again. */
  send(file, fields, headers) {
    if (this.#isCancelled) return null;
    const form = new FormData();
    for (const [name, value] of Object.entries(fields)) form.append(name, value);
    form.append("audio_file", file);
    const request = (this.#request = this.#opened(headers));
    return new Promise((resolve, reject) => {
      request.onload = () => this.#judge(resolve, reject);
      request.onabort = () => resolve(null);
      request.onerror = () => {
        const reason = "the connection broke, or the service refused the upload while it came in";
        reject(new UploadFailed(`The file did not get through: ${reason}.`, 0));
      };
      request.send(form);
    });
  }

  cancel() {
    this.#isCancelled = true;
    this.#request?.abort();
    this.#cancel();
  }

  #opened(headers) {
    const request = new XMLHttpRequest();
    request.open("POST", this.#url);
    for (const [name, value] of Object.entries({ Accept: "application/json", ...headers })) {
      request.setRequestHeader(name, value);
    }
    request.upload.onprogress = ({ loaded, total }) => this.#on.onProgress(loaded / total, loaded);
    request.upload.onload = this.#on.onSent;
    return request;
  }

  #judge(resolve, reject) {
    const { status, responseText } = this.#request;
    const answer = parsed(responseText);
    if (status === 200 && answer?.success) resolve(answer);
    else reject(new UploadFailed(this.#sentence(status, answer), status));
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
