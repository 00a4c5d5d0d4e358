// What is said to a person beside the transcript: what is wrong, and what is worth knowing.

/** `kind`: "error" or "note". The kind is written, so that it does not hang on the colour. */
export function say(element, kind, sentence) {
  element.dataset.kind = kind;
  element.textContent = `${kind === "error" ? "Error" : "Note"}: ${sentence}`;
  element.hidden = false;
}

export function unsay(element) {
  element.hidden = true;
  element.textContent = "";
}

/** Facts as a description list: [name, value] pairs; those without a value are left out. */
export function tell(list, facts) {
  const items = facts.filter(([, value]) => value).map(([name, value]) => {
    const item = document.createElement("div");
    item.append(term("dt", name), term("dd", value));
    return item;
  });
  list.replaceChildren(...items);
}

function term(kind, text) {
  const element = document.createElement(kind);
  element.textContent = text;
  return element;
}

export function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** A message of the service with a capital letter and a full stop. */
export function sentence(message) {
  return capital(/[.!?]$/.test(message) ? message : `${message}.`);
}
