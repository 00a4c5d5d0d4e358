// Tabs as the ARIA practices describe them: arrows go from one to the next.

export class Tabs {
  #tabs;
  #onChange;

  /** `onChange(name)` hears "live" or "file", whichever is shown. */
  constructor(list, onChange) {
    this.#tabs = [...list.querySelectorAll("[role=tab]")];
    this.#onChange = onChange;
    list.addEventListener("click", ({ target }) => this.#choose(target.closest("[role=tab]")));
    list.addEventListener("keydown", (event) => this.#key(event));
    this.show(location.hash === "#file" ? "file" : "live");
  }

  show(name) {
    this.#choose(this.#tabs.find(({ id }) => id === `tab-${name}`));
  }

  #choose(chosen) {
    if (!chosen) return;
    for (const tab of this.#tabs) {
      const selected = tab === chosen;
      tab.setAttribute("aria-selected", String(selected));
      tab.tabIndex = selected ? 0 : -1;
      document.getElementById(tab.getAttribute("aria-controls")).hidden = !selected;
    }
    this.#onChange(chosen.id.replace("tab-", ""));
  }

  #key(event) {
    const at = this.#tabs.indexOf(event.target);
    const last = this.#tabs.length - 1;
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: last }[event.key];
    if (to === undefined || at < 0) return;
    event.preventDefault();
    const tab = this.#tabs[(to + this.#tabs.length) % this.#tabs.length];
    this.#choose(tab);
    tab.focus();
  }
}
