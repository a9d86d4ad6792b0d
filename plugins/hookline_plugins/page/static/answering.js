// What answering has in common, for items and in conversations: the choices, the time that it takes, and sending until it is stored.
import { $, ask, at, fill, remember, words } from "./common.js";

export const side = (n) => String.fromCharCode(65 + n);

/** What can be said about two candidates. */
export function compared(question) {
  const list = [];
  const add = (label, value) => list.push({ label, value });
  const better = (n, strength) => add(`${fill(words.better, { side: side(n) })}${strength ? `: ${words[`strength_${strength}`]}` : ""}`, strength ? { better: n, strength } : { better: n });
  if (question.strength) for (const n of [3, 2, 1]) better(0, n);
  else { better(0); better(1); }
  if (question.ties) add(words.tie, { better: "tie" });
  if (question.strength) for (const n of [1, 2, 3]) better(1, n);
  if (question.bothBad) add(words.both_bad, { better: "both-bad" });
  return list;
}
export const thumbs = (of) => [{ label: words.up, value: { of, up: true } }, { label: words.down, value: { of, up: false } }];
export const same = (a, b) => a.better === b.better && (a.strength ?? null) === (b.strength ?? null) && a.up === b.up;

export const number = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

/** How long somebody is active on a question. */
export class Clock {
  static IDLE = 30000;

  constructor() {
    this.begin();
    for (const name of ["pointermove", "keydown", "wheel", "touchstart"]) addEventListener(name, () => this.active(), { passive: true });
    document.addEventListener("visibilitychange", () => { if (document.hidden) this.active(); else this.seen = performance.now(); });
  }

  begin() { Object.assign(this, { shown: Date.now() / 1000, begun: null, spent: 0, seen: performance.now() }); }

  touch() { this.begun ??= Date.now() / 1000; }

  active() {
    const now = performance.now();
    if (!document.hidden && now - this.seen < Clock.IDLE) this.spent += (now - this.seen) / 1000;
    this.seen = now;
  }

  times() {
    this.active();
    return { shown: this.shown, begun: this.begun, submitted: Date.now() / 1000, active: Math.round(this.spent * 1000) / 1000 };
  }
}

/** Send an answer until there is a reply to it; it is kept in `box` until then, also after a reload. */
export async function deliver(path, body, box) {
  remember(box, body);
  $("saved").textContent = words.saving;
  for (;;) {
    let reply = null;
    try { reply = await ask("POST", path, body); } catch { /* no reply: the same answer is sent again */ }
    $("saved").textContent = "";
    if (reply && reply.status < 500 && reply.status !== 429) {
      remember(box, undefined);
      return reply;
    }
    $("banner").textContent = fill(words.unsaved, { why: reply ? reply.body.error : "…" });
    await new Promise((resolve) => setTimeout(resolve, 1500));
  }
}

for (const cancel of document.querySelectorAll("dialog .cancel")) cancel.addEventListener("click", () => cancel.closest("dialog").close());
export const open = (id) => { if (!document.querySelector("dialog[open]")) $(id).showModal(); };
$("leave")?.addEventListener("click", async () => { await ask("POST", "/leave", {}); location.replace(at("/hello")); });
