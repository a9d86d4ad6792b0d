// What every page needs: words, requests, the theme and the language.
export const $ = (id) => document.getElementById(id);
export const words = JSON.parse($("words").textContent);
const { root } = document.documentElement.dataset;
const csrf = document.querySelector('meta[name="csrf"]').content;

export const fill = (text, values) => text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);

export function minutes(seconds) {
  const n = Math.round(seconds / 60);
  return fill(n === 1 ? words.minute : words.minutes, { n });
}

export function element(tag, { attributes = {}, ...properties } = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** A path of the page, below the prefix under which it is served. */
export const at = (path) => root + path;

/** Ask the server; resolves to {status, body}. Rejects only where there is no reply. */
export async function ask(method, path, body) {
  const headers = { accept: "application/json", "x-csrf": csrf };
  if (body !== undefined) headers["content-type"] = "application/json";
  const reply = await fetch(at(path), { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  return { status: reply.status, body: await reply.json().catch(() => ({ error: reply.statusText })) };
}

const own = (name) => (root ? `${root} ${name}` : name); // other pages may be served under the same name
export const remember = (name, value) => {
  try {
    if (value === undefined) localStorage.removeItem(own(name));
    else localStorage.setItem(own(name), JSON.stringify(value));
  } catch { /* a full or forbidden storage costs drafts, never answers */ }
};
export const recall = (name) => {
  try { return JSON.parse(localStorage.getItem(own(name))) ?? undefined; } catch { return undefined; }
};

const theme = recall("theme");
if (theme) document.documentElement.dataset.theme = theme;
$("theme").addEventListener("click", () => {
  const dark = getComputedStyle(document.documentElement).colorScheme.trim() === "dark" || (!document.documentElement.dataset.theme
    && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  remember("theme", document.documentElement.dataset.theme);
});
$("language").addEventListener("change", (event) => {
  document.cookie = `language=${event.target.value}; path=${at("/")}; max-age=31536000; samesite=strict`;
  location.reload();
});
