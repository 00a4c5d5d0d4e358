// The form that asks for a key, and the button that forgets it.

export class KeyForm {
  #form;
  #forget;
  #says;
  #field;
  onKey = async () => {};
  onForget = () => {};

  constructor(form, forget) {
    this.#form = form;
    this.#forget = forget;
    this.#says = form.querySelector("[role=alert]");
    this.#field = form.elements.key;
    form.addEventListener("submit", (event) => this.#submit(event));
    forget.addEventListener("click", () => this.onForget());
  }

  /** Asks for a key, and says why. */
  show(why) {
    this.#form.hidden = false;
    this.#says.textContent = why;
    this.#field.focus();
    this.#field.select();
  }

  hide() {
    this.#form.hidden = true;
    this.#field.value = "";
  }

  /** Whether there is a key to forget. */
  remembers(isThere) {
    this.#forget.hidden = !isThere;
  }

  async #submit(event) {
    event.preventDefault();
    const key = this.#field.value.trim();
    // What cannot be in a header is in no key.
    if (!/^[\x21-\x7e]+$/.test(key)) {
      this.show(key ? "A key has no spaces and no letters with accents." : "The key is empty.");
      return;
    }
    const button = this.#form.querySelector("button");
    button.disabled = true;
    await this.onKey(key);
    button.disabled = false;
  }
}
