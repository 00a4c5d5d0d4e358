// The tab "File": a recording in, its text out.

import { say, tell, unsay } from "./notice.js";
import { Transcript } from "./transcript.js";
import { minutes, percent, TranscriptView } from "./transcript-view.js";
import { Upload } from "./upload.js";

const byId = (id) => document.getElementById(id);

export class FilePanel {
  #url;
  #settings;
  #access;
  #view;
  #file = null;
  #upload = null;
  #clock = null;
  #status = byId("file-status");
  #notice = byId("file-notice");
  #progress = byId("progress");

  /** `onDrop()` is called when a file is dropped, wherever on the page. */
  constructor({ url, settings, access, onDrop }) {
    this.#url = url;
    this.#settings = settings;
    this.#access = access;
    this.#view = new TranscriptView(byId("file-transcript"), {
      placeholder: "The text appears here.",
      follows: false,
      name: () => this.#file.name.replace(/\.[^.]*$/, "") || "transcript",
      onClear: () => this.#clear(),
    });
    this.#listen(onDrop);
  }

  #listen(onDrop) {
    const input = byId("file");
    input.addEventListener("change", () => {
      this.#take(input.files);
      input.value = ""; // the same file may be chosen again
    });
    byId("cancel").addEventListener("click", () => this.#upload?.cancel());
    byId("again").addEventListener("click", () => this.#transcribe());
    // A file that misses the place would otherwise replace the page.
    document.addEventListener("dragover", (event) => this.#over(event, true));
    document.addEventListener("dragleave", (event) => this.#over(event, false));
    document.addEventListener("drop", (event) => {
      this.#over(event, false);
      if (!event.dataTransfer.files.length) return;
      onDrop();
      this.#take(event.dataTransfer.files);
    });
  }

  #over(event, over) {
    event.preventDefault();
    byId("drop").dataset.over = over;
  }

  #take(files) {
    if (!files.length) return;
    if (this.#upload) {
      say(this.#notice, "note", "One recording at a time: cancel the one that is under way first.");
      return;
    }
    this.#file = files[0];
    this.#transcribe(files.length > 1 ? `Only ${files[0].name} was taken.` : "");
  }

  async #transcribe(note = "") {
    this.#begin(note);
    try {
      const fields = { ...this.#settings.upload, word_timestamps: "true" };
      this.#show(await this.#send(fields), fields.task);
    } catch (error) {
      say(this.#notice, "error", error.message);
      this.#end("No transcript.");
    }
  }

  /** Waits for a key where one is needed, and sends the file again where it turns out so. */
  async #send(fields) {
    const upload = this.#upload;
    for (;;) {
      await Promise.race([this.#access.enter(), upload.cancelled]);
      this.#sending(0, 0);
      try {
        return await upload.send(this.#file, fields, this.#access.headers);
      } catch (error) {
        if (!(await this.#access.locks(error.status))) throw error;
        this.#waiting();
      }
    }
  }

  #waiting() {
    clearInterval(this.#clock);
    this.#progress.value = 0;
    this.#status.textContent = `${this.#file.name} waits until the service lets it in.`;
  }

  #begin(note) {
    this.#clear();
    if (note) say(this.#notice, "note", note);
    byId("upload").hidden = byId("cancel").hidden = this.#progress.hidden = false;
    byId("again").hidden = true;
    this.#upload = new Upload(this.#url, {
      onProgress: (share, bytes) => this.#sending(share, bytes),
      onSent: () => this.#transcribing(),
    });
    this.#waiting();
  }

  #sending(share, bytes) {
    this.#progress.value = share;
    const sent = `${megabytes(bytes)} of ${megabytes(this.#file.size)} MB`;
    this.#status.textContent = `Sending ${this.#file.name}: ${percent(share)}, ${sent}`;
  }

  /** How long it takes is not known; that it goes on is shown. */
  #transcribing() {
    this.#progress.removeAttribute("value");
    const since = performance.now();
    const elapsed = document.createElement("span");
    // A reader of the screen would otherwise say every second.
    elapsed.setAttribute("aria-hidden", "true");
    this.#status.replaceChildren(`Transcribing ${this.#file.name} `, elapsed);
    this.#clock = setInterval(() => {
      elapsed.textContent = minutes((performance.now() - since) / 1000);
    }, 1000);
  }

  #show(answer, task) {
    if (!answer) {
      this.#end("Cancelled.");
      return;
    }
    const transcript = Transcript.of(answer, task === "translate" ? "en" : answer.language);
    this.#view.show(transcript);
    this.#end(transcript.isEmpty ? "No speech was found in it." : "Done.");
    const probability = answer.language_probability;
    tell(byId("file-facts"), [
      ["File", this.#file.name],
      ["Language", answer.language && `${transcript.languageName} (${percent(probability)})`],
      ["Length", answer.duration && minutes(answer.duration)],
      ["Words", String(answer.word_count)],
      ["Processing time", `${answer.latency.toFixed(2)} s`],
    ]);
  }

  #end(sentence) {
    clearInterval(this.#clock);
    this.#upload = null;
    this.#status.textContent = `${this.#file.name}: ${sentence}`;
    this.#progress.hidden = byId("cancel").hidden = true;
    byId("again").hidden = false;
  }

  #clear() {
    this.#view.show(null);
    unsay(this.#notice);
    tell(byId("file-facts"), []);
    byId("upload").hidden = true;
  }
}

function megabytes(bytes) {
  return (bytes / 1e6).toFixed(1);
}
