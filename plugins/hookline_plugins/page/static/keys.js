// The keys of a page: they are shown on its buttons, and people may change them.
import { $, element, fill, recall, remember, words } from "./common.js";

export const DIGITS = Object.fromEntries([1, 2, 3, 4, 5, 6, 7, 8, 9].map((n) => [`choice ${n}`, String(n)]));

export class Keys {
  /** defaults: action → key; named: action → its name; changed: called when a key is another. */
  constructor(defaults, named, changed) {
    Object.assign(this, { defaults, named, changed, waiting: null, chosen: this.#known(defaults) });
    $("restore").addEventListener("click", () => { remember("keys", undefined); this.chosen = { ...defaults }; this.list(); changed(); });
  }

  #known(defaults) {
    const kept = recall("keys") ?? {};
    return Object.fromEntries(Object.entries(defaults).map(([action, key]) => [action, kept[action] ?? key]));
  }

  of(action) { return element("kbd", { textContent: this.chosen[action] === " " ? "␣" : this.chosen[action] }); }

  action(key) { return Object.keys(this.chosen).find((name) => this.chosen[name] === key); }

  list() {
    $("key-list").replaceChildren(...Object.keys(this.defaults).flatMap((action) => {
      const label = this.named[action] ?? action;
      const change = () => { this.waiting = action; $("key-said").textContent = fill(words.change_keys, { action: label }); };
      return [element("span", { textContent: label }), element("button", { type: "button", onclick: change }, this.of(action))];
    }));
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
