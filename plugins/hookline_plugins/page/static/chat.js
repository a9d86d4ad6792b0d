// A conversation with a model whose replies are judged as they come. The message is kept here until its replies are judged.
import { Clock, compared, deliver, number, open, same, side, thumbs } from "./answering.js";
import { $, ask, element, fill, recall, remember, words } from "./common.js";
import { DIGITS, Keys, typing } from "./keys.js";

const BOX = "outbox/chat";
const KEYS = { submit: "Enter", skip: "s", undo: "u", comment: "m", write: "w", "take back": "b", new: "n", keys: "?", ...DIGITS };
const NAMED = { submit: words.submit, skip: words.skip, undo: words.undo, comment: words.comment, write: words.message, "take back": words.take_back, new: words.chat_new,
  keys: words.shortcuts };
const keys = new Keys(KEYS, NAMED, [["Esc", words.key_escape], ["Ctrl+Enter", words.key_field]], () => { if (state) show(); else labels(); });
const clock = new Clock();
const name = `chat ${$("talk").dataset.who}`; // another person at this browser has other conversations

let state = null; // the conversation as the server knows it
const drawn = {}; // what is shown, so that it is not made again while replies are written
let given = {}, changing = false, busy = false, timer = 0, waits = 0;

// what is typed or sent, and not judged yet: {session, number, text, sent}
const kept = () => { const found = recall(name); return found && (!state || found.session === state.session) ? found : null; };
const keep = (sent) => remember(name, { session: state.session, number: state.number, text: $("message").value, sent });

const turn = () => (changing ? state.last : state?.turn);
const ready = () => turn()?.state === "ready";
const choices = () => (turn().kind === "comparison" ? compared(turn()) : thumbs(0));

// -- the page

function bubble(one) {
  const made = element("div", { className: `turn ${one.role}` }, element("b", { textContent: words[one.role] }));
  const body = element("div");
  body.innerHTML = one.html; // made by the server, which escapes every text
  made.append(body);
  return made;
}

function show() {
  if (!state) return;
  const at = turn();
  const turns = [...(changing ? at.turns : state.turns), ...(at ? [at.asked] : [])];
  if (other("turns", turns)) {
    $("turns").replaceChildren(...turns.map(bubble));
    $("turns").hidden = !turns.length;
    $("turns").scrollTop = $("turns").scrollHeight;
  }
  $("asked").textContent = !at ? words.chat_say : at.state === "writing" ? words.chat_writing : at.state === "failed" ? words[`chat_${at.why}`] ?? words.chat_broken : words[`q_${at.kind}`];
  $("editing").hidden = !changing;
  $("say").hidden = Boolean(at);
  for (const id of ["submit", "skip", "comment-label"]) $(id).hidden = !ready();
  $("again").hidden = at?.state !== "failed" || ["full", "long"].includes(at.why);
  $("take-back").hidden = !at || changing;
  $("undo").hidden = !state.last || changing;
  $("help").textContent = at?.same ? words.chat_same : "";
  candidates();
  paint();
}

function other(part, value) {
  const text = JSON.stringify(value);
  const found = drawn[part] !== text;
  drawn[part] = text;
  return found;
}

function candidates() {
  const at = turn(), shown = at?.candidates ?? [], several = at?.kind === "comparison";
  if (!other("candidates", [shown, at?.state, several, keys.chosen])) return;
  $("candidates").className = several ? "several" : "";
  $("candidates").setAttribute("aria-busy", String(at?.state === "writing"));
  $("candidates").hidden = !shown.length;
  $("candidates").replaceChildren(...shown.map((one, n) => {
    const title = several ? `${words.answer} ${side(n)}` : words.answer;
    const body = element("div", { className: "body" });
    body.innerHTML = one.html;
    const notes = [...(one.empty ? [words.chat_empty] : []), ...(one.cut ? [words.chat_cut] : [])];
    return element("article", { className: "card", attributes: { "data-side": n, "aria-label": title } },
      element("h3", {}, ...(several && !at.strength && at.state === "ready" ? [keys.of(`choice ${n + 1}`)] : []), title), body, ...notes.map((textContent) => element("p", { className: "note", textContent })));
  }));
}

function paint() {
  const focused = document.activeElement?.closest?.("#choices") ? [...$("choices").children].indexOf(document.activeElement) : -1;
  $("choices").replaceChildren(...(ready() ? choices().map(({ label, value }, i) => element("button", { type: "button", onclick: () => choose(value),
    attributes: { "aria-pressed": String(same(value, given)) } }, keys.of(`choice ${i + 1}`), label)) : []));
  if (focused >= 0) $("choices").children[focused]?.focus();
  for (const card of $("candidates").children) card.classList.toggle("chosen", given.better === Number(card.dataset.side));
  labels();
}

function labels() {
  const inText = typing();
  for (const [id, action] of [["submit", "submit"], ["skip", "skip"], ["undo", "undo"], ["take-back", "take back"], ["new", "new"], ["keys", "keys"]]) {
    const key = inText && id === "submit" ? element("kbd", { textContent: "Ctrl+Enter" }) : keys.of(action, inText && id === "undo" ? "Esc " : "");
    $(id).replaceChildren(key, NAMED[action]);
  }
  $("comment-name").replaceChildren(keys.of("comment"), words.comment);
}
for (const name of ["focusin", "focusout"]) addEventListener(name, labels);

const choose = (value) => { clock.touch(); given = value; if ($("saved").textContent === words.nothing_chosen) $("saved").textContent = ""; paint(); if (recall("once")) submit(); };
const problem = (reply) => { $("banner").textContent = fill(words.problem, { why: reply?.body.error ?? "…" }); };

/** The server's conversation is another than the one that is shown. */
function take(found) {
  const before = state;
  state = { ...(before ?? {}), ...found };
  const next = before?.session !== state.session || before?.number !== state.number || Boolean(before?.turn) !== Boolean(state.turn);
  if (next) { given = {}; changing = false; $("comment").value = ""; }
  if (before?.turn?.state !== state.turn?.state) clock.begin();
  show();
  if (state.turn?.state === "ready" && before?.turn?.state === "writing") { $("saved").textContent = words.chat_ready; $("asked").focus({ preventScroll: true }); }
  clearTimeout(timer);
  if (state.turn?.state === "writing") timer = setTimeout(look, 250);
}

async function look() {
  if (!state) return; // another conversation is begun
  let reply = null;
  const { session } = state;
  try { reply = await ask("GET", `/chat/talk?turn=alone&session=${session}`); } catch { /* asked again below */ }
  if (session !== state?.session) return;
  if (busy) { timer = setTimeout(look, 250); return; } // what is under way may fail, and the replies are still written
  if (reply?.status !== 200) { problem(reply); timer = setTimeout(look, 2000); return; }
  $("banner").textContent = "";
  if (reply.body.number !== state.number || Boolean(reply.body.turn) !== Boolean(state.turn)) { await load(); return; } // it went on in another tab, or the server is another
  take(reply.body);
}

async function load(session) {
  session ??= state?.session ?? recall(name)?.session;
  let reply = null;
  try { reply = await ask("GET", `/chat/talk${session ? `?session=${session}` : ""}`); } catch { /* asked again below */ }
  if (reply?.status === 422 && session) { remember(name, undefined); await load(); return; }
  if (reply?.status !== 200) { problem(reply); setTimeout(() => load(session), 3000); return; }
  $("banner").textContent = "";
  take(reply.body);
  const waiting = kept();
  if (!state.turn && waiting) {
    const mine = waiting.number === state.number; // else its replies were judged
    $("message").value = mine ? waiting.text : "";
    if (mine && waiting.sent) await say(); // the server was restarted: the same message has the same replies
  }
  (state.turn ? $("asked") : $("message")).focus({ preventScroll: true });
}

// -- what a person does

async function say() {
  const text = state.turn ? state.turn.text : $("message").value;
  if (busy || !text.trim()) return;
  busy = true;
  if (!state.turn) keep(true);
  let reply = null;
  try { reply = await ask("POST", "/chat/say", { session: state.session, number: state.number, text }); } catch { /* said below */ }
  busy = false;
  if (reply?.status !== 200) {
    if (!state.turn) keep(false);
    problem(reply);
    if (reply?.status === 409) await load();
    return;
  }
  $("banner").textContent = $("saved").textContent = "";
  take(reply.body);
  $("asked").focus({ preventScroll: true });
}

async function takeBack() {
  if (!state?.turn || changing || busy) return;
  const { text } = state.turn;
  busy = true;
  let reply = null;
  try { reply = await ask("POST", "/chat/take-back", { session: state.session, number: state.number }); } catch { /* said below */ }
  busy = false;
  if (reply?.status !== 200) { problem(reply); return; }
  take(reply.body);
  $("message").value = text;
  keep(false);
  $("message").focus();
}

async function submit(skip) {
  if (!ready() || busy) return;
  const at = turn();
  if (skip === undefined && given.better === undefined && given.up === undefined) { $("saved").textContent = words.nothing_chosen; $("asked").focus(); return; }
  busy = true;
  const text = changing ? state.turn?.text ?? $("message").value : "";
  const body = { id: number(), session: state.session, number: at.number ?? state.number, answer: skip === undefined ? given : { skip }, comment: $("comment").value,
    replaces: at.replaces ?? null, times: clock.times() };
  await judged(await deliver("/chat/judge", body, BOX), text);
}

async function judged(reply, text) {
  busy = false;
  $("banner").textContent = "";
  if (reply.status !== 200) { problem(reply); await load(); return; }
  changing = false;
  given = {};
  take(reply.body);
  $("comment").value = "";
  $("message").value = text;
  keep(false);
  const { last } = state;
  $("saved").textContent = last?.kind === "comparison" ? fill(words.goes_on, { side: side(last.continues) }) : words.saved;
  $("message").focus();
}

function change() {
  if (!state?.last || busy || changing) return;
  changing = true;
  given = state.last.given.skip === undefined ? state.last.given : {};
  $("comment").value = state.last.comment;
  clock.begin();
  show();
  $("asked").focus({ preventScroll: true });
}

function back() {
  changing = false;
  given = {};
  $("comment").value = "";
  show();
  (state.turn ? $("asked") : $("message")).focus({ preventScroll: true });
}

async function begin() {
  if (busy || !state) return;
  const session = number();
  if (state.turn) await takeBack();
  $("message").value = "";
  remember(name, { session, number: 0, text: "", sent: false });
  $("saved").textContent = "";
  state = null;
  changing = false;
  await load(session);
}

// -- buttons and keys

const ACTIONS = { submit: () => submit(), skip: () => submit(""), undo: change, comment: () => ready() && $("comment").focus(), write: () => !$("say").hidden && $("message").focus(),
  "take back": takeBack, new: begin, keys: () => { keys.list(); open("keys-dialog"); } };
for (const [id, action] of [["submit", "submit"], ["skip", "skip"], ["undo", "undo"], ["take-back", "take back"], ["new", "new"], ["keys", "keys"]]) $(id).addEventListener("click", () => ACTIONS[action]());
$("again").addEventListener("click", say);
$("back").addEventListener("click", back);
$("say").addEventListener("submit", (event) => { event.preventDefault(); say(); });
$("message").addEventListener("input", () => { clearTimeout(waits); waits = setTimeout(() => { if (state && !state.turn) keep(false); }, 250); });
$("comment").addEventListener("input", () => clock.touch());
$("once").checked = Boolean(recall("once"));
$("once").addEventListener("change", () => remember("once", $("once").checked));

addEventListener("keydown", (event) => {
  if (keys.takes(event) || document.querySelector("dialog[open]")) return;
  if (event.isComposing || event.keyCode === 229) return; // a character is being chosen, e.g. in Chinese
  const field = event.target.closest?.("textarea, input, select");
  if (field) {
    if (event.key === "Escape") field.blur();
    else if (event.key === "Enter" && field.id === "message" && !event.shiftKey) { event.preventDefault(); say(); }
    else if (event.key === "Enter" && field.id === "comment" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); submit(); }
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || busy) return;
  const pressed = event.target.closest?.("button, a, summary");
  if (pressed && [" ", "Enter"].includes(event.key) && pressed.id !== "submit") return; // the button's own key
  const action = keys.action(event.key);
  if (!action) return;
  event.preventDefault();
  if (action === "submit" && turn()?.state === "failed" && !$("again").hidden) say();
  else if (ACTIONS[action]) ACTIONS[action]();
  else if (ready()) { const found = choices()[Number(action.slice(7)) - 1]; if (found) choose(found.value); }
});

const left = recall(BOX);
if (left) deliver("/chat/judge", left, BOX).then(() => load(left.session));
else load();
