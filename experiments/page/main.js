"use strict";
// What is shown stands in the address after the #: it can be kept, sent, and gone back from.

const DATA = JSON.parse(document.getElementById("data").textContent);
const ROWS = DATA.runs.flatMap((run) => run.results.map((result) => ({ ...result, run, id: result.arm ? `${run.id}~${result.arm}` : run.id })));
for (const row of ROWS) row.text = haystack(row);

const VIEWS = ["run", "compare"];
const DEFAULTS = { sort: "started", dir: "desc" };
const address = () => Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
const rowOf = (id) => ROWS.find((row) => row.id === id);

/** The address with `changes` in it; a view that `changes` does not name is left. */
function link(changes) {
  const kept = { ...address() };
  for (const view of VIEWS) delete kept[view];
  const wanted = Object.entries({ ...kept, ...changes }).filter(([key, value]) => value && DEFAULTS[key] !== value);
  return `#${new URLSearchParams(wanted)}`;
}

/** Changes what the table shows, in place: the back button leaves the page's views, not every letter typed. */
function go(changes) {
  history.replaceState(null, "", link(changes));
  draw();
}

/** Two can be chosen; a third takes the place of the older one. */
function choose(id, on) {
  const { a, b } = address();
  const chosen = [a, b].filter((other) => other && other !== id && rowOf(other));
  const [first, second] = on ? [...chosen, id].slice(-2) : chosen;
  go({ a: first, b: second });
}

function drawTray(state) {
  const tray = document.getElementById("tray");
  const chosen = [rowOf(state.a), rowOf(state.b)].filter(Boolean);
  tray.hidden = !chosen.length || Boolean(state.run || state.compare);
  const drop = (row) => el("button", { type: "button", class: "drop", "aria-label": `Do not compare ${row.method}`, onclick: () => choose(row.id, false) }, "×");
  tray.replaceChildren(
    el("ul", {}, chosen.map((row, i) => el("li", {}, el("b", {}, "AB"[i]), ` ${row.method} `, el("span", { class: "under" }, row.run.dataset), drop(row)))),
    chosen.length === 2 ? el("a", { class: "button", id: "compare", href: link({ compare: 1 }) }, "Compare") : el("span", { class: "note" }, "choose one more"));
}

function drawFilters(state) {
  const form = document.getElementById("filters");
  for (const name of ["experiment", "dataset", "method"]) {
    const values = [...new Set(ROWS.map((row) => (name === "method" ? row.method : row.run[name])).filter(Boolean))];
    const options = ["", ...values.sort((x, y) => x.localeCompare(y))].map((value) => el("option", { value }, value || "all"));
    form.elements[name].replaceChildren(...options);
    form.elements[name].value = state[name] ?? "";
  }
  form.elements.smoke.checked = Boolean(state.smoke);
  if (form.elements.q.value !== (state.q ?? "")) form.elements.q.value = state.q ?? "";
}

let before = ""; // the view that was shown last

function draw() {
  const state = { ...DEFAULTS, ...address() };
  const [a, b] = [rowOf(state.a), rowOf(state.b)];
  const row = rowOf(state.run);
  const view = row ? detailsView(row) : state.compare && a && b ? compareView(a, b, DATA.t) : null;
  const part = document.getElementById("view");
  document.getElementById("overview").hidden = Boolean(view);
  part.hidden = !view;
  part.replaceChildren(...(view ?? []).flat(Infinity).filter(Boolean));
  drawFilters(state);
  drawTable(ROWS, state);
  drawTray(state);
  const now = view ? location.hash : "";
  if (now !== before) {
    scrollTo(0, 0);
    part.querySelector("h2")?.focus({ preventScroll: true });
  }
  before = now;
}

const form = document.getElementById("filters");
form.addEventListener("input", (event) => go({ [event.target.name]: event.target.type === "checkbox" ? (event.target.checked ? "1" : "") : event.target.value }));
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", () => go({ q: "", experiment: "", dataset: "", method: "", smoke: "" }));
addEventListener("hashchange", draw);

const left = DATA.runs.flatMap((run) => run.files).filter((file) => !file.id).length;
document.getElementById("made").textContent = [
  DATA.sweep ? `sweep ${DATA.sweep} in ${DATA.out}` : DATA.out, `${DATA.runs.length} runs`, `made ${DATA.made}`,
  left ? `${left} figures left out, named in their runs` : "",
].filter(Boolean).join(" · ");
draw();
