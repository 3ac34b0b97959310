"use strict";
// The table of results: one row for every arm of every run.

/** `value` sorts, `cell` shows; `number` columns are compared as numbers, and begin with the largest. */
const COLUMNS = [
  { key: "method", label: "Method", value: (r) => r.method, cell: methodCell },
  { key: "dataset", label: "Dataset", value: (r) => r.run.dataset, cell: datasetCell },
  { key: "score", label: "Score", number: true, value: (r) => r.score?.[0], cell: scoreCell },
  { key: "status", label: "Status", value: (r) => r.run.status, cell: (r) => pill(r.run.status) },
  { key: "seeds", label: "Seeds", number: true, value: (r) => r.seeds?.length, cell: (r) => count(r.seeds?.length) },
  { key: "updates", label: "Updates", number: true, value: (r) => r.run.updates, cell: (r) => count(r.run.updates) },
  { key: "minutes", label: "Minutes", number: true, value: (r) => r.minutes, cell: (r) => duration(r.minutes) },
  { key: "latency", label: "Latency", number: true, value: (r) => r.run.latency, cell: (r) => milliseconds(r.run.latency) },
  { key: "preset", label: "Preset", value: (r) => r.run.preset, cell: (r) => (r.run.preset === "smoke" ? pill("smoke") : r.run.preset ?? NONE) },
  { key: "experiment", label: "Experiment", value: (r) => r.run.experiment, cell: (r) => r.run.experiment || NONE },
  { key: "started", label: "Started", value: (r) => r.run.started, cell: startedCell },
  { key: "commit", label: "Commit", value: (r) => r.run.commit, cell: (r) => el("code", {}, r.run.commit?.slice(0, 7) ?? NONE) },
];

const pill = (word) => el("span", { class: `pill ${String(word).replace(/[^a-z]/g, "")}` }, word);

function methodCell(row) {
  return [
    el("a", { href: link({ run: row.id }) }, row.method),
    el("span", { class: "under narrow" }, [row.run.dataset, row.run.experiment].filter(Boolean).join(" · ")),
    row.run.status !== "finished" && el("span", { class: "narrow" }, pill(row.run.status)),
    row.run.error && el("span", { class: "under error" }, row.run.error),
    row.run.status === "unfinished" && row.run.progress && el("span", { class: "under" }, row.run.progress),
  ];
}

/** The dataset's name, and apart from it where it comes from. */
function datasetCell(row) {
  const [, name, origin] = /^(.*?)\s*(\(.*\))?$/s.exec(row.run.dataset);
  return [name, origin && el("span", { class: "under" }, origin)];
}

function startedCell(row) {
  const [day, time] = (row.run.started ?? NONE).split(" ");
  return [day, time && el("span", { class: "under" }, time)];
}

function scoreCell(row) {
  if (!row.score) return NONE;
  const [mean, bounds] = [fixed(row.score[0]), interval(row.score).replace(/^\S+\s*/, "")];
  return [el("span", { class: "score" }, el("b", {}, mean), " ", el("span", { class: "bounds" }, bounds)), el("span", { class: "under" }, row.run.score_name)];
}

/** What the search looks in. */
const haystack = (row) => [...COLUMNS.map((c) => c.value(row)), row.id, row.run.command, row.run.error, row.run.facts.hash].join(" ").toLowerCase();

function matches(row, state) {
  const words = (state.q ?? "").toLowerCase().split(/\s+/).filter(Boolean);
  return (
    (!state.experiment || row.run.experiment === state.experiment) &&
    (!state.dataset || row.run.dataset === state.dataset) &&
    (!state.method || row.method === state.method) &&
    words.every((word) => row.text.includes(word))
  );
}

/** Rows in the order of a column; what is missing stands last in both directions. */
function sorted(rows, key, direction) {
  const column = COLUMNS.find((c) => c.key === key) ?? COLUMNS.find((c) => c.key === "started");
  const sign = direction === "asc" ? 1 : -1;
  return [...rows].sort((a, b) => {
    const [x, y] = [column.value(a), column.value(b)];
    if (missing(x) || missing(y)) return missing(x) - missing(y);
    return sign * (column.number ? x - y : x.localeCompare(y, "en", { numeric: true }));
  });
}

function drawHead(state) {
  const heads = COLUMNS.map((column) => {
    const current = state.sort === column.key;
    const natural = column.number || column.key === "started" ? "desc" : "asc";
    const next = !current ? natural : state.dir === "asc" ? "desc" : "asc";
    const order = current && (state.dir === "asc" ? "ascending" : "descending");
    const button = el("button", { type: "button", id: `sort-${column.key}`, onclick: () => go({ sort: column.key, dir: next }) },
      column.label, el("span", { class: "arrow", "aria-hidden": "true" }, current ? (state.dir === "asc" ? "▲" : "▼") : ""));
    return el("th", { scope: "col", "aria-sort": order, class: `${column.key} ${column.number ? "number" : ""}` }, button);
  });
  const focused = document.activeElement?.id;
  document.querySelector("#runs thead").replaceChildren(el("tr", {}, el("th", { scope: "col", class: "choose" }, el("span", { class: "hidden" }, "Compare")), heads));
  if (focused?.startsWith("sort-")) document.getElementById(focused).focus();
}

function drawBody(rows, state) {
  const lines = rows.map((row) => {
    const box = el("input", { type: "checkbox", "aria-label": `Compare ${row.method} on ${row.run.dataset}, ${row.run.started ?? row.id}`, onchange: () => choose(row.id, box.checked) });
    box.checked = state.a === row.id || state.b === row.id;
    const cells = COLUMNS.map((column) => {
      const content = [column.cell(row)];
      const name = `${column.key} ${column.number ? "number" : ""}`;
      return column.key === "method" ? el("th", { scope: "row", class: name }, content) : el("td", { class: name }, content);
    });
    return el("tr", { "data-id": row.id, class: row.run.preset === "smoke" ? "smoke" : null }, el("td", { class: "choose" }, el("label", {}, box)), cells);
  });
  const none = el("tr", {}, el("td", { colspan: COLUMNS.length + 1, class: "none" }, "No run matches."));
  document.querySelector("#runs tbody").replaceChildren(...(lines.length ? lines : [none]));
}

function drawTable(rows, state) {
  const smoke = rows.filter((row) => row.run.preset === "smoke");
  const open = state.smoke ? rows : rows.filter((row) => row.run.preset !== "smoke");
  const found = open.filter((row) => matches(row, state));
  drawHead(state);
  drawBody(sorted(found, state.sort, state.dir), state);
  const hidden = smoke.length && !state.smoke ? `; ${smoke.length} of the smoke preset hidden, they are no results` : "";
  document.getElementById("count").textContent = `${found.length} of ${open.length} results${hidden}`;
}
