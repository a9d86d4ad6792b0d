// The coordinator's page: how far the work is, whom to trust, and invitations.
import { $, ask, at, element, fill, minutes, words } from "./common.js";

const share = (value) => (value ? `${Math.round(value[0] * 100)} %${value[1] === null ? "" : ` (${Math.round(value[1] * 100)}–${Math.round(value[2] * 100)})`}` : "");
/** How many answers of each kind, where there are several. */
function kinds(counts) {
  const there = Object.entries(counts).filter(([kind]) => words[`kind_${kind}`]);
  return there.length > 1 ? [element("div", { className: "note", textContent: there.map(([kind, n]) => `${words[`kind_${kind}`]} ${n}`).join(", ") })] : [];
}
const cell = (text) => element("td", { textContent: text ?? "" });

async function show() {
  let reply;
  const find = $("find").value;
  try { reply = await ask("GET", `/team/figures?find=${encodeURIComponent(find)}`); } catch { return; }
  if (find !== $("find").value) return; // typed meanwhile
  if (reply.status !== 200) { $("banner").textContent = fill(words.problem, { why: reply.body.error }); return; }
  const { counts, annotators, people, agreement, adjudicate, contests } = reply.body;
  $("found").textContent = find ? fill(words.found, { shown: annotators.length, all: people }) : "";
  $("queue").textContent = `${words.queue}: ${fill(words.queue_said, counts)}`;
  $("people").replaceChildren(...annotators.map((one) => element("tr", {},
    element("th", { scope: "row", textContent: one.name }), cell(words[one.role] ?? ""), element("td", {}, String(one.answers), ...kinds(one.kinds)), cell(one.skips), cell(minutes(one.seconds)),
    cell(share(one.agreement)), cell(share(one.gold)), cell(share(one.repeats)), cell(share(one.first)), element("td", { textContent: one.verdict ?? "", title: one.why ?? "" }),
    element("td", {}, element("button", { type: "button", textContent: words.remove, onclick: () => remove(one.name, false) }), " ",
      element("button", { type: "button", textContent: words.forget, onclick: () => remove(one.name, true) })))));
  $("agreement").replaceChildren(...(agreement.length ? agreement.map((one) => element("li", { textContent:
    `${one.kind}: α ${one.alpha ?? "–"}${one.low === null ? "" : ` (${one.low} – ${one.high})`}` })) : [element("li", { textContent: words.none_yet })]));
  $("contest").hidden = !contests.length;
  $("contests").replaceChildren(...contests.map((one) => element("li", { textContent:
    `${fill(words.against, one)}${one.axis ? `, ${one.axis}` : ""}, ${one.by}: ${one.value ?? "–"}${one.low === null ? "" : ` (${one.low} – ${one.high})`}; ${one.prompts}/${one.asked}; ${one.state}` })));
  $("adjudicate").replaceChildren(...(adjudicate.length ? adjudicate.map((one) => element("li", {}, element("a", { href: at(`/team/decide?handle=${one.handle}`), textContent: one.prompt || "…" }), ` (${one.answers})`))
    : [element("li", { textContent: words.none_yet })]));
}

async function remove(name, forget) {
  if (!confirm(fill(forget ? words.really_forget : words.sure, { name }))) return;
  const { status, body } = await ask("POST", "/team/remove", { name, forget });
  $("banner").textContent = status === 200 ? "" : fill(words.problem, { why: body.error });
  show();
}

$("invite").addEventListener("submit", async (event) => {
  event.preventDefault();
  const [name, role] = [$("name").value, $("role").value];
  const { status, body } = await ask("POST", "/team/invite", { name, role });
  $("banner").textContent = status === 200 ? "" : fill(words.problem, { why: body.error });
  if (status !== 200) return;
  const key = role === "application";
  $("link").replaceChildren(fill(key ? words.key : words.link, { name }), " ", element("code", { textContent: key ? body.token : `${location.origin}${at("/enter")}#${body.token}` }));
  $("invite").reset();
  show();
});
let typed = 0;
$("find").addEventListener("input", () => { clearTimeout(typed); typed = setTimeout(show, 250); });
show();
setInterval(show, 6000);
