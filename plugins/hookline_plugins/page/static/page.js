// The annotators' page: shows a question, takes an answer by mouse or keys, and keeps it until the server has stored it.
import { Clock, compared, deliver, number, open, same, side, thumbs } from "./answering.js";
import { $, ask, at, element, fill, minutes, recall, remember, words } from "./common.js";
import { DIGITS, Keys, typing } from "./keys.js";

if ($("come-in")) {
  $("come-in").addEventListener("click", async () => {
    const { status, body } = await ask("POST", "/enter", { token: location.hash.slice(1) });
    if (status === 200) location.replace(at("/"));
    else $("said").textContent = body.error;
  });
}
if ($("item")) work();

function work() {
  // -- keys

  const KEYS = { submit: "Enter", skip: "s", undo: "u", comment: "m", write: "w", earlier: "e", keys: "?", tie: "t", none: "0", ...DIGITS };
  const NAMED = { submit: words.submit, skip: words.skip, undo: words.undo, comment: words.comment, write: words.key_write, earlier: words.earlier, keys: words.shortcuts,
    tie: words.key_tie, none: words.key_none };
  const FIXED = [["← →", words.key_sideways], ["Shift+← →", words.key_select], ["Delete", words.key_delete], ["↑ ↓", words.key_upwards], ["Esc", words.key_escape], ["Ctrl+Enter", words.key_field]];
  const keys = new Keys(KEYS, NAMED, FIXED, () => { if (question) show(); else labels(); });
  const keyOf = (action) => keys.of(action);

  // -- the question at hand

  const { base } = $("item").dataset; // "" for annotators; where coordinators decide, /team/decide
  let question = null, given = {}, replaces = null, sending = false, loading = false, row = 0, span = null;
  const clock = new Clock();
  const scale = () => {
    const [low, high, step] = question.scale;
    return step ? Array.from({ length: Math.round((high - low) / step) + 1 }, (_, i) => +(low + i * step).toFixed(6)) : [];
  };

  // the one after it is asked for meanwhile, so that nobody waits; an item is kept for half an hour, so an old one is asked for anew
  const KEPT = 10 * 60 * 1000;
  let ahead = []; // questions with the time since when they wait
  const waiting = () => { ahead = ahead.filter((one) => Date.now() - one.at < KEPT); return ahead.map((one) => one.question); };
  const put = (found) => { if (found && !ahead.some((one) => one.question.handle === found.handle)) ahead.push({ question: found, at: Date.now() }); };
  async function lookAhead() {
    if (base || !question || replaces || waiting().length) return;
    const { handle } = question;
    const reply = await ask("GET", `/question?beside=${handle}`).catch(() => null);
    if (reply?.status === 200 && question?.handle === handle) put(reply.body.question);
  }

  async function next(handle, progressed) {
    loading = true; // what is pressed meanwhile is meant for neither question
    const [following] = progressed ? waiting() : [];
    let reply = following ? { status: 200, body: { question: following, progress: progressed } } : null;
    ahead = following ? ahead.slice(1) : [];
    try { reply ??= await ask("GET", `${base}/question${handle ? `?handle=${encodeURIComponent(handle)}` : ""}`); } catch (err) { reply = null; }
    if (!reply || reply.status !== 200) {
      $("banner").textContent = fill(words.problem, { why: reply ? reply.body.error : "…" });
      setTimeout(() => next(handle), 3000);
      return;
    }
    loading = false;
    const progress = progressed ?? reply.body.progress;
    $("progress").textContent = fill(base ? words.progress_decided : words.progress, { ...progress, time: minutes(progress.seconds) });
    question = reply.body.question;
    replaces = question?.replaces ?? null;
    $("editing").hidden = !replaces;
    told(question?.said);
    if (!question) {
      show();
      setTimeout(() => { if (!question && !sending) next(); }, 5000);
      return;
    }
    given = question.given ?? {};
    $("comment").value = question.comment ?? "";
    const draft = recall(`draft ${question.handle}`);
    if (draft && !replaces) { given = draft.given; $("comment").value = draft.comment; }
    $("saved").textContent = draft && !replaces ? words.draft : $("saved").textContent;
    clock.begin();
    row = 0;
    span = null;
    show();
    $("asked").focus({ preventScroll: true });
    scrollTo(0, 0);
    lookAhead();
  }

  function show() {
    const kind = question?.kind;
    $("asked").textContent = question ? question.question || words[`q_${kind}`] : base ? words.nothing_to_decide : words.nothing;
    for (const id of ["actions", "comment-label"]) $(id).hidden = !question;
    $("turns").replaceChildren(...(question?.turns ?? []).map((turn) => {
      const made = element("div", { className: `turn ${turn.role}` }, element("b", { textContent: words[turn.role] }));
      const body = element("div");
      body.innerHTML = turn.html; // made by the server, which escapes every text
      made.append(body, ...turn.images.map((name) => element("img", { src: at(`/media/${name}`), alt: words.image })));
      return made;
    }));
    $("turns").hidden = !question;
    const several = (question?.candidates.length ?? 0) > 1;
    $("candidates").className = several ? "several" : "";
    $("candidates").replaceChildren(...(question?.candidates ?? []).map((candidate, n) => {
      const chosenByKey = several && ((kind === "comparison" && !question.strength) || ["ranking", "correction"].includes(kind));
      const title = element("h3", {}, ...(chosenByKey ? [keyOf(`choice ${n + 1}`)] : []), `${words.answer}${several ? ` ${side(n)}` : ""}`);
      const body = element("div", { className: "body" });
      if (kind === "spans" && n === (given.of ?? 0)) body.append(marking(candidate.text));
      else body.innerHTML = candidate.html;
      const card = element("article", { className: "card", attributes: { "data-side": n, "aria-label": `${words.answer} ${several ? side(n) : ""}` } }, title, body);
      if (kind === "ranking") draggable(card, n);
      return card;
    }));
    $("help").textContent = help(kind);
    paint();
  }

  function help(kind) {
    if (kind !== "rating") return fill(words[`${kind}_help`] ?? "", { tie: keys.text("tie"), none: keys.text("none"), write: keys.text("write") });
    return [question.scale[2] ? words.rating_help : words.slider_help, ...(question.axes.length > 1 ? [words.rows_help] : [])].join(" ");
  }

  // -- what the annotators said, where a coordinator decides

  function told(said) {
    if (!$("told")) return;
    $("told").hidden = !said?.length;
    $("told-list").replaceChildren(...(said ?? []).map((one) => element("li", {}, element("b", { textContent: one.name }), ": ", inWords(one.given),
      ...(one.comment ? [element("p", { className: "note", textContent: one.comment })] : []))));
  }
  function inWords(said) {
    const list = (values) => values.map(side).join(" = ");
    if (said.better !== undefined) {
      const better = { tie: words.tie, "both-bad": words.both_bad }[said.better] ?? fill(words.better, { side: side(said.better) });
      return said.strength ? `${better} (${words[`strength_${said.strength}`]})` : better;
    }
    if (said.order) return said.order.map(list).join(" > ");
    const which = question.candidates.length > 1 ? `${side(said.of)}: ` : "";
    if (said.marks) return which + Object.entries(said.marks).map(([axis, mark]) => (axis === "overall" ? `${mark}` : `${axis} ${mark}`)).join(", ");
    if (said.up !== undefined) return which + (said.up ? words.up : words.down);
    if (said.text !== undefined) return difference(question.candidates[said.of].text, said.text);
    return which + (said.spans.map((one) => `${one.label} “${[...question.candidates[said.of].text].slice(one.start, one.end).join("").slice(0, 60)}”`).join(", ") || words.nothing_marked);
  }

  // -- what can be answered

  const button = (label, action, pressed, run) =>
    element("button", { type: "button", onclick: run, attributes: { "aria-pressed": String(Boolean(pressed)) } }, ...(action ? [keyOf(action)] : []), label);
  const choose = (value) => { clock.touch(); given = value; changed(); if (recall("once") && ["comparison", "thumb"].includes(question.kind)) submit(); };

  const simple = () => (question.kind === "comparison" ? compared(question) : thumbs(given.of ?? 0));

  const KINDS = {
    comparison: () => simple().map(({ label, value }, i) => button(label, `choice ${i + 1}`, same(value, given), () => choose(value))),
    thumb: () => simple().map(({ label, value }, i) => button(label, `choice ${i + 1}`, same(value, given), () => choose(value))),
    rating: () => question.axes.map((axis, i) => {
      const name = question.axes.length > 1 || axis !== "overall" ? axis : words.answer;
      const marks = given.marks ?? {};
      const set = (mark) => { clock.touch(); row = i; given = { of: given.of ?? 0, marks: { ...marks, [axis]: mark } }; changed(); };
      const line = element("div", { className: `row${i === row ? " chosen" : ""}`, attributes: { role: "group", "aria-label": name } }, element("span", { textContent: name }));
      if (question.scale[2]) line.append(...scale().map((mark, at) => button(String(mark), markKey(mark, at), marks[axis] === mark, () => set(mark))));
      else {
        const [low, high] = question.scale;
        const slider = element("input", { type: "range", min: low, max: high, step: (high - low) / 100, value: marks[axis] ?? (low + high) / 2, ariaLabel: name });
        const said = element("output", { textContent: marks[axis] ?? "–" });
        slider.addEventListener("input", () => { clock.touch(); row = i; given = { of: given.of ?? 0, marks: { ...(given.marks ?? {}), [axis]: +slider.value } }; said.textContent = slider.value; noted(); });
        line.append(slider, said);
      }
      return line;
    }),
    ranking: () => {
      const order = places();
      return [...order.map((group, place) => element("div", { className: "row" }, element("span", { textContent: `${place + 1}.` }), ...group.map(ranked))),
        element("div", { className: "row" }, element("span", { textContent: words.unranked }), ...unranked().map(ranked))];
    },
    correction: () => {
      const before = question.candidates[given.of ?? 0].text;
      const area = element("textarea", { id: "correction", rows: Math.min(20, 3 + before.split("\n").length), value: given.text ?? before, ariaLabel: words.q_correction });
      const changes = element("div", { className: "card", id: "changes" });
      const diff = () => changes.replaceChildren(element("h3", { textContent: words.changes }), difference(before, area.value));
      area.addEventListener("input", () => { clock.touch(); given = { of: given.of ?? 0, text: area.value }; diff(); noted(); });
      diff();
      const which = question.candidates.length > 1
        ? [element("div", { className: "row" }, ...question.candidates.map((_, n) => button(fill(words.answer + " {side}", { side: side(n) }), `choice ${n + 1}`, n === (given.of ?? 0), () => { given = { of: n }; changed(); })))]
        : [];
      return [...which, element("div", {}, area), changes];
    },
    spans: () => {
      const list = (given.spans ?? []).map((one, i) => element("li", {}, `${one.label}: “${[...question.candidates[given.of ?? 0].text].slice(one.start, one.end).join("").slice(0, 60)}” `,
        element("button", { type: "button", textContent: words.remove, onclick: () => { given = { ...given, spans: given.spans.filter((_, at) => at !== i) }; show(); draft(); } })));
      return [element("div", { className: "row" }, ...question.labels.map((label, i) => button(label, `choice ${i + 1}`, false, () => mark(label)))),
        element("div", {}, element("b", { textContent: words.marked }), list.length ? element("ul", {}, ...list) : element("p", { className: "note", textContent: words.nothing_marked }))];
    },
  };

  function paint() {
    if (!question) { $("choices").replaceChildren(); labels(); return; }
    const focused = document.activeElement?.closest?.("#choices") ? [...$("choices").querySelectorAll("button,input")].indexOf(document.activeElement) : -1;
    $("choices").replaceChildren(...KINDS[question.kind]());
    if (focused >= 0) $("choices").querySelectorAll("button,input")[focused]?.focus();
    for (const card of $("candidates").children) {
      const n = Number(card.dataset.side);
      const judged = ["rating", "thumb", "spans"].includes(question.kind) && question.candidates.length > 1 && n === (given.of ?? 0);
      card.classList.toggle("chosen", given.better === n || judged || (question.kind === "ranking" && n === row));
    }
    labels();
  }
  function labels() {
    const inText = typing();
    for (const id of ["submit", "skip", "undo", "earlier", "keys"]) $(id).replaceChildren(inText && id === "submit" ? element("kbd", { textContent: "Ctrl+Enter" }) : keyOf(id), NAMED[id]);
    $("comment-name").replaceChildren(keyOf("comment"), words.comment);
  }
  for (const name of ["focusin", "focusout"]) addEventListener(name, labels);
  function changed() { paint(); noted(); }
  function noted() {
    if (unfinished.includes($("saved").textContent)) $("saved").textContent = "";
    draft();
  }

  // -- ratings

  // digits are the marks that they name; on a scale with fractions, they count the marks
  function markKey(mark, at) {
    if (!scale().every(Number.isInteger)) return at < 9 ? `choice ${at + 1}` : "";
    if (mark > 0 && mark < 10) return `choice ${mark}`;
    return mark === 0 || (mark === 10 && question.scale[0] > 0) ? "none" : "";
  }
  function stepMark(by) {
    const [low, high, step] = question.scale, axis = question.axes[row], mark = given.marks?.[axis];
    const begin = !step ? (low + high) / 2 : by > 0 ? low : high;
    const to = mark === undefined ? begin : Math.max(low, Math.min(high, mark + by * (step || (high - low) / 100)));
    clock.touch();
    given = { of: given.of ?? 0, marks: { ...(given.marks ?? {}), [axis]: +to.toFixed(6) } };
    changed();
  }

  // -- rankings

  const places = () => given.order ?? question.candidates.map((_, n) => [n]);
  const unranked = () => { const there = places().flat(); return question.candidates.map((_, n) => n).filter((n) => !there.includes(n)); };
  const ranked = (n) => button(`${words.answer} ${side(n)}`, `choice ${n + 1}`, n === row, () => pick(n));
  function pick(n) { clock.touch(); row = n; given = { order: places() }; changed(); } // who chooses one has seen the order
  function move(n, by) {
    clock.touch();
    let order = places().map((group) => [...group]);
    const at = order.findIndex((group) => group.includes(n));
    if (at < 0) order.push([n]);
    else if (order[at].length > 1) {
      order[at] = order[at].filter((one) => one !== n);
      order.splice(by < 0 ? at : at + 1, 0, [n]);
    } else {
      const to = Math.max(0, Math.min(order.length - 1, at + by));
      order.splice(to, 0, ...order.splice(at, 1));
    }
    given = { order };
    changed();
  }
  function tie(n) {
    clock.touch();
    const order = places().map((group) => [...group]);
    const at = order.findIndex((group) => group.includes(n));
    if (at > 0 && order[at].length === 1) { order[at - 1].push(n); order.splice(at, 1); }
    given = { order };
    changed();
  }
  function takeOut(n) { clock.touch(); given = { order: places().map((group) => group.filter((one) => one !== n)).filter((group) => group.length) }; changed(); }
  function draggable(card, n) {
    card.draggable = true;
    card.addEventListener("dragstart", (event) => event.dataTransfer.setData("text/plain", String(n)));
    card.addEventListener("dragover", (event) => event.preventDefault());
    card.addEventListener("drop", (event) => {
      event.preventDefault();
      const from = Number(event.dataTransfer.getData("text/plain"));
      if (!Number.isInteger(from) || from === n) return;
      clock.touch();
      const order = places().map((group) => group.filter((one) => one !== from)).filter((group) => group.length);
      const at = order.findIndex((group) => group.includes(n));
      order.splice(at < 0 ? order.length : at, 0, [from]);
      given = { order };
      row = from;
      changed();
    });
  }

  // -- spans

  const segmenter = new Intl.Segmenter(document.documentElement.lang, { granularity: "word" }); // Chinese has words without spaces
  function parts(text) {
    let at = 0;
    return [...segmenter.segment(text)].map(({ segment: part }) => { const start = at; at += [...part].length; return { part, start, end: at }; });
  }
  function marking(text) {
    const made = element("pre", { id: "words-of-text", tabIndex: 0, ariaLabel: words.q_spans });
    const marks = given.spans ?? [];
    parts(text).forEach(({ part, start, end }, i) => {
      const found = marks.find((one) => start < one.end && one.start < end);
      const node = element(found ? "mark" : "span", { className: "word", textContent: part, attributes: { "data-at": i } });
      if (found && end >= found.end) node.dataset.label = found.label;
      if (span && i >= Math.min(span.from, span.to) && i <= Math.max(span.from, span.to)) node.classList.add(span.from === span.to ? "at" : "chosen");
      made.append(node);
    });
    made.addEventListener("mouseup", () => {
      const chosen = getSelection();
      const of = (node) => Number((node?.nodeType === 3 ? node.parentElement : node)?.closest?.(".word")?.dataset.at ?? NaN);
      const [from, to] = [of(chosen.anchorNode), of(chosen.focusNode)];
      if (!Number.isNaN(from) && !Number.isNaN(to)) { span = { from: Math.min(from, to), to: Math.max(from, to) }; refresh(); }
    });
    return made;
  }
  function refresh() { const had = document.activeElement?.id === "words-of-text"; show(); if (had) $("words-of-text").focus(); }
  function walk(by, keep) {
    const list = parts(question.candidates[given.of ?? 0].text);
    if (!list.length) return;
    const to = span ? span.to : -by;
    let at = to + by;
    while (list[at] && !list[at].part.trim()) at += by;
    if (!list[at]) return;
    span = { from: keep && span ? span.from : at, to: at };
    clock.touch();
    refresh();
  }
  function mark(label) {
    if (!span) return;
    const list = parts(question.candidates[given.of ?? 0].text);
    const [from, to] = [Math.min(span.from, span.to), Math.max(span.from, span.to)];
    clock.touch();
    given = { of: given.of ?? 0, spans: [...(given.spans ?? []), { start: list[from].start, end: list[to].end, label }] };
    refresh();
    draft();
  }
  function unmark() {
    if (!span) return;
    const { start, end } = parts(question.candidates[given.of ?? 0].text)[span.to];
    given = { ...given, spans: (given.spans ?? []).filter((one) => !(start < one.end && one.start < end)) };
    refresh();
    draft();
  }

  // -- the difference between two texts, by words

  function difference(before, after) {
    const [a, b] = [before, after].map((text) => text.match(/\s+|[\p{L}\p{N}]+|[^\s\p{L}\p{N}]/gu) ?? []);
    const made = element("pre");
    if (before === after) { made.textContent = words.no_changes; return made; }
    let from = 0, enda = a.length, endb = b.length;
    while (from < enda && from < endb && a[from] === b[from]) from++;
    while (enda > from && endb > from && a[enda - 1] === b[endb - 1]) { enda--; endb--; }
    const put = (tag, list) => { if (list.length) made.append(tag ? element(tag, { textContent: list.join("") }) : list.join("")); };
    put("", a.slice(0, from));
    const [x, y] = [a.slice(from, enda), b.slice(from, endb)];
    if (x.length * y.length > 4e6) { put("del", x); put("ins", y); } else {
      const size = Array.from({ length: x.length + 1 }, () => new Uint32Array(y.length + 1));
      for (let i = x.length - 1; i >= 0; i--) for (let j = y.length - 1; j >= 0; j--) size[i][j] = x[i] === y[j] ? size[i + 1][j + 1] + 1 : Math.max(size[i + 1][j], size[i][j + 1]);
      let i = 0, j = 0;
      while (i < x.length || j < y.length) {
        const [gone, come, kept] = [[], [], []];
        while (i < x.length && j < y.length && x[i] === y[j]) { kept.push(x[i]); i++; j++; }
        put("", kept);
        while ((i < x.length || j < y.length) && !(i < x.length && j < y.length && x[i] === y[j])) {
          if (i < x.length && (j >= y.length || size[i + 1][j] >= size[i][j + 1])) gone.push(x[i++]);
          else come.push(y[j++]);
        }
        put("del", gone);
        put("ins", come);
      }
    }
    put("", a.slice(enda));
    return made;
  }

  // -- time and drafts

  let timer = 0;
  function draft() {
    clearTimeout(timer);
    const [handle, kept] = [question.handle, { given, comment: $("comment").value }];
    timer = setTimeout(() => remember(`draft ${handle}`, kept), 250);
  }
  $("comment").addEventListener("input", () => { clock.touch(); draft(); });

  // -- sending

  const complete = () => {
    if (question.kind === "ranking") return (given.order?.length ?? 0) > 0;
    if (question.kind === "rating") return question.axes.every((axis) => given.marks?.[axis] !== undefined);
    if (question.kind === "correction") return given.text !== undefined && given.text !== question.candidates[given.of ?? 0].text;
    if (question.kind === "spans") return true;
    return Object.keys(given).length > 0 && (given.better !== undefined || given.up !== undefined);
  };
  const unfinished = [words.nothing_chosen, words.rows_left, words.no_changes];
  function missing() {
    if (question.kind === "correction") return words.no_changes;
    return question.kind === "rating" && Object.keys(given.marks ?? {}).length ? words.rows_left : words.nothing_chosen;
  }
  async function submit(skip) {
    if (!question || sending) return;
    if (!skip && !complete()) { $("saved").textContent = missing(); $("asked").focus(); return; }
    clearTimeout(timer);
    let answer = skip !== undefined ? { skip } : given;
    if (!skip && question.kind === "ranking") answer = { order: places() };
    if (!skip && question.kind === "spans") answer = { of: given.of ?? 0, spans: given.spans ?? [] };
    const body = { id: number(), handle: question.handle, answer, comment: $("comment").value, replaces,
      times: clock.times(), ...(base || replaces ? {} : { beside: waiting().map((one) => one.handle) }) };
    await send(body);
  }

  async function send(body) {
    sending = true;
    const reply = await deliver(`${base}/answer`, body, `outbox${base}`);
    sending = false;
    if (reply.status === 200) {
      remember(`draft ${body.handle}`, undefined);
      $("banner").textContent = "";
      $("saved").textContent = words.saved;
      if (question) put(reply.body.question); // not after a reload, which asks for what is at hand
      await next(undefined, reply.body.progress);
    } else {
      $("banner").textContent = fill(words.problem, { why: reply.body.error });
      if (reply.status === 404 || reply.status === 409) await next();
    }
  }

  // -- buttons, dialogs, keys

  const REASONS = ["reason_unclear", "reason_expertise", "reason_harmful", "reason_broken"];
  $("reasons").replaceChildren(...REASONS.map((name, i) => element("button", { type: "button", onclick: () => { $("skip-dialog").close(); submit(name.slice(7)); } },
    element("kbd", { textContent: String(i + 1) }), words[name])));
  const undo = async () => {
    const { body } = await ask("GET", `${base}/answered`);
    if (body.answers?.length) await next(body.answers[0].handle);
  };
  const earlier = async () => {
    const { body } = await ask("GET", `${base}/answered`);
    $("answered").replaceChildren(...(body.answers ?? []).map((one) => element("li", {}, element("button", { type: "button",
      textContent: `${one.prompt}`, onclick: () => { $("earlier-dialog").close(); next(one.handle); } }))));
    open("earlier-dialog");
  };
  const ACTIONS = { submit: () => submit(), skip: () => open("skip-dialog"), undo, comment: () => $("comment").focus(), write: () => $("correction")?.focus(), earlier, keys: () => { keys.list(); open("keys-dialog"); } };
  for (const id of ["submit", "skip", "undo", "earlier", "keys"]) $(id).addEventListener("click", () => ACTIONS[id]());
  $("back").addEventListener("click", () => next());
  $("once").checked = Boolean(recall("once"));
  $("once").addEventListener("change", () => remember("once", $("once").checked));

  function choice(n) {
    if (question.kind === "comparison" || question.kind === "thumb") { const found = simple()[n - 1]; if (found) choose(found.value); }
    else if (question.kind === "rating") rate(n);
    else if (question.kind === "ranking") { if (n <= question.candidates.length) pick(n - 1); }
    else if (question.kind === "spans") { if (question.labels[n - 1]) mark(question.labels[n - 1]); }
    else if (question.kind === "correction" && n <= question.candidates.length) { given = { of: n - 1 }; changed(); }
  }
  function rate(n) {
    const axis = question.axes[row];
    const found = scale().find((mark, at) => markKey(mark, at) === (n === 0 ? "none" : `choice ${n}`));
    if (found === undefined) return;
    clock.touch();
    given = { of: given.of ?? 0, marks: { ...(given.marks ?? {}), [axis]: found } };
    row = Math.min(row + 1, question.axes.length - 1);
    changed();
  }

  addEventListener("keydown", (event) => {
    if (keys.takes(event)) return;
    const dialog = document.querySelector("dialog[open]");
    if (dialog) {
      const at = Number(event.key) - 1;
      if (dialog.id === "skip-dialog" && $("reasons").children[at]) { event.preventDefault(); $("reasons").children[at].click(); }
      return;
    }
    const field = event.target.closest?.("textarea, input:not([type=range]), select");
    if (field) {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); submit(); }
      if (event.key === "Escape") field.blur();
      return;
    }
    if (!question) { const wanted = keys.action(event.key); if (["keys", "earlier", "undo"].includes(wanted)) ACTIONS[wanted](); return; }
    if (event.ctrlKey || event.metaKey || event.altKey || sending || loading) return;
    const pressed = event.target.closest?.("button, a, summary");
    if (pressed && [" ", "Enter"].includes(event.key) && pressed.id !== "submit") return; // the button's own key
    const { kind } = question;
    if (kind === "ranking" && (event.key === "ArrowUp" || event.key === "ArrowDown")) { event.preventDefault(); move(row, event.key === "ArrowUp" ? -1 : 1); return; }
    if (kind === "rating" && question.axes.length > 1 && event.target.type !== "range" && (event.key === "ArrowUp" || event.key === "ArrowDown")) {
      event.preventDefault();
      row = Math.max(0, Math.min(question.axes.length - 1, row + (event.key === "ArrowUp" ? -1 : 1)));
      paint();
      return;
    }
    if (kind === "rating" && event.target.type !== "range" && (event.key === "ArrowLeft" || event.key === "ArrowRight")) { event.preventDefault(); stepMark(event.key === "ArrowLeft" ? -1 : 1); return; }
    if (kind === "spans" && (event.key === "ArrowLeft" || event.key === "ArrowRight")) { event.preventDefault(); walk(event.key === "ArrowLeft" ? -1 : 1, event.shiftKey); return; }
    if (kind === "spans" && (event.key === "Delete" || event.key === "Backspace")) { event.preventDefault(); unmark(); return; }
    const action = keys.action(event.key);
    if (!action) return;
    event.preventDefault();
    if (ACTIONS[action]) ACTIONS[action]();
    else if (action === "tie") { if (kind === "ranking") tie(row); }
    else if (action === "none") { if (kind === "ranking") takeOut(row); else if (kind === "rating") rate(0); }
    else choice(Number(action.slice(7)));
  });

  const left = recall(`outbox${base}`);
  if (left) send(left);
  else next(new URLSearchParams(location.search).get("handle"));
}
