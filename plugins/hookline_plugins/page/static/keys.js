// The keys of a page: they are shown on its buttons, and people may change them.
import { $, element, fill, recall, remember, words } from "./common.js";

export const DIGITS = Object.fromEntries([1, 2, 3, 4, 5, 6, 7, 8, 9].map((n) => [`choice ${n}`, String(n)]));

/** Whether what is pressed goes into a text; its keys are shown then, and no others. */
export function typing() {
  const found = document.activeElement?.tagName === "TEXTAREA";
  document.body.classList.toggle("typing", found);
  return found;
}

export class Keys {
  /** defaults: action → key; named: action → its name; fixed: [keys, what they do] of those that stay; changed: called when a key is another. */
  constructor(defaults, named, fixed, changed) {
    Object.assign(this, { defaults, named, fixed, changed, waiting: null, chosen: this.#known(defaults) });
    $("restore").addEventListener("click", () => { remember("keys", undefined); this.chosen = { ...defaults }; this.list(); changed(); });
  }

  #known(defaults) {
    const kept = recall("keys") ?? {};
    return Object.fromEntries(Object.entries(defaults).map(([action, key]) => [action, kept[action] ?? key]));
  }

  text(action) { return this.chosen[action] === " " ? "␣" : this.chosen[action]; }

  /** The key of an action, as it is shown; before: what is pressed first. */
  of(action, before = "") { return element("kbd", { textContent: before + this.text(action) }); }

  action(key) { return Object.keys(this.chosen).find((name) => this.chosen[name] === key); }

  list() {
    const stay = this.fixed.flatMap(([textContent, label]) => [element("span", { textContent: label }), element("kbd", { textContent })]);
    $("key-list").replaceChildren(...Object.keys(this.defaults).flatMap((action) => {
      const label = this.named[action] ?? fill(words.key_choice, { n: action.slice(7) });
      const change = () => { this.waiting = action; $("key-said").textContent = fill(words.change_keys, { action: label }); };
      return [element("span", { textContent: label }), element("button", { type: "button", onclick: change }, this.of(action))];
    }), ...stay);
  }

  /** Whether a press is the new key of an action, which it is then. */
  takes(event) {
    if (!this.waiting) return false;
    event.preventDefault();
    if (event.key.length > 1 && !["Enter", "Backspace", "Delete"].includes(event.key)) {
      if (event.key === "Escape") this.waiting = null;
      return true;
    }
    const other = this.action(event.key);
    if (other) this.chosen[other] = this.chosen[this.waiting];
    this.chosen[this.waiting] = event.key;
    this.waiting = null;
    $("key-said").textContent = "";
    remember("keys", { ...recall("keys"), ...this.chosen });
    this.list();
    this.changed();
    return true;
  }
}
