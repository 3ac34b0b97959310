"use strict";
// Two results side by side: scores, their difference, the settings that differ, curves and figures.

/** `{"model.features": 48, ...}` of a nested configuration; lists are values. */
function flat(value, name = "") {
  if (value === null || typeof value !== "object" || Array.isArray(value)) return { [name]: value };
  return Object.assign({}, ...Object.entries(value).map(([key, inner]) => flat(inner, name ? `${name}.${key}` : key)));
}

/** `[key, value there, value here]` where two configurations differ. */
function differences(first, second) {
  const [a, b] = [flat(first), flat(second)];
  const keys = [...new Set([...Object.keys(a), ...Object.keys(b)])].filter(Boolean);
  return keys.filter((key) => JSON.stringify(a[key]) !== JSON.stringify(b[key])).map((key) => [key, a[key], b[key]]);
}

/** Everything that a number depends on, of one row. */
const settings = ({ run, arm }) => ({ ...run.config, ...(arm ? { arm } : {}), ...run.facts, hash: undefined, dataset: run.dataset, task: run.task });

/** Why a difference of scores would say nothing of the methods, or would say little. */
function doubts(a, b, difference) {
  const found = [];
  const [x, y] = [a.run, b.run];
  const same = (of) => JSON.stringify(of(x)) === JSON.stringify(of(y));
  if (!same((run) => [run.dataset, run.task, run.facts.sha256])) found.push("The two are on different data or tasks: their scores do not compare.");
  if (!same((run) => run.score_name)) found.push("The two scores are of different kinds.");
  if (!same((run) => run.updates)) found.push("The two were trained for different numbers of updates.");
  if (x.preset === "smoke" || y.preset === "smoke") found.push("A run of the smoke preset is no result.");
  if (difference && difference[1] === null) found.push("With one seed there is no interval of the difference.");
  if (difference && difference[1] !== null && difference[1] === difference[2]) found.push("No seed differs from another, so the interval has no width: it says nothing of other seeds.");
  return found;
}

/** Lines of one metric, first of `a` and then of `b`, for every metric that both have logged. */
function overlays(a, b) {
  const own = (row, letter) => row.run.curves
    .filter((line) => !line.arm || line.phase === row.arm)
    .filter((line) => line.metric !== "score" || row.run.results.length === 1 || line.phase === row.arm)
    .map((line) => ({ ...line, name: `${letter}: ${line.phase}` }));
  const [first, second] = [own(a, "A"), own(b, "B")];
  const metrics = [...new Set(first.map((line) => line.metric))].filter((metric) => second.some((line) => line.metric === metric));
  return metrics.map((metric) => [metric, [...first, ...second].filter((line) => line.metric === metric)]);
}

function comparisonTable(a, b) {
  const line = (name, show) => el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, show(a)), el("td", {}, show(b)));
  const head = ["", "A", "B"].map((text) => el("th", { scope: "col" }, text));
  return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Scores of both" }, el("table", { class: "plain", id: "scores" },
    el("thead", {}, el("tr", {}, head)),
    el("tbody", {}, line(a.run.score_name ?? "score", (row) => interval(row.score)),
      line("seeds", (row) => row.seeds?.map((seed) => fixed(seed)).join(", ") ?? NONE),
      line("episodes a seed", ({ run }) => count(run.episodes)), line("updates", ({ run }) => count(run.updates)),
      line("minutes of training", (row) => duration(row.minutes)), line("latency", ({ run }) => milliseconds(run.latency)),
      line("status", ({ run }) => pill(run.status)))));
}

/** The settings that differ; folded away those that only one of the two has. */
function differencesSection(rows) {
  if (!rows.length) return el("p", { class: "note" }, "Nothing differs.");
  const shared = rows.filter(([, first, second]) => first !== undefined && second !== undefined);
  const others = rows.filter((row) => !shared.includes(row));
  return [
    shared.length > 0 && differencesTable(shared, "differences"),
    others.length > 0 && el("details", { class: "fold" }, el("summary", {}, `${others.length} settings that only one of the two has`), differencesTable(others, "others")),
  ];
}

function differencesTable(rows, id) {
  const head = ["setting", "A", "B"].map((text) => el("th", { scope: "col" }, text));
  const lines = rows.map(([key, first, second]) => el("tr", {}, el("th", { scope: "row" }, key), [first, second].map((value) => el("td", {}, el("code", {}, shown(value))))));
  return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Settings that differ" },
    el("table", { class: "plain", id }, el("thead", {}, el("tr", {}, head)), el("tbody", {}, lines)));
}

/** Figures of the same name, beside each other. */
function figurePairs(a, b) {
  if (a.run === b.run) return [];
  const pairs = a.run.files.map((file) => [file, b.run.files.find((other) => other.name === file.name)]).filter(([, other]) => other);
  return pairs.map((pair) => el("div", { class: "pair" }, pair.map((file, i) => el("div", {}, el("p", { class: "letter" }, i ? "B" : "A"), media(file, `${file.name} of ${i ? "B" : "A"}`)))));
}

function compareView(a, b, table) {
  const difference = welch(a.seeds, b.seeds, table);
  const named = [{ ...a, name: `A: ${a.method}` }, { ...b, name: `B: ${b.method}` }];
  const plots = overlays(a, b).map(([metric, lines]) => plot(metric === "score" ? `${a.run.score_name ?? "score"} by update` : metric, lines, { note: metric === "score" ? STUDENT : null, reference: metric === "score" && a.run.dataset === b.run.dataset ? behaviourOf(a.run) ?? behaviourOf(b.run) : null })).filter(Boolean);
  const pairs = figurePairs(a, b);
  const name = (row, letter) => el("li", {}, el("b", {}, `${letter} `), el("a", { href: link({ run: row.id }) }, `${row.method} on ${row.run.dataset}`), el("span", { class: "under" }, el("code", {}, row.id)));
  return [
    el("p", { class: "back" }, el("a", { href: link({}) }, "← All runs"), el("a", { href: link({ a: b.id, b: a.id, compare: 1 }) }, "Swap A and B")),
    el("h2", { tabindex: -1 }, "Two results compared"),
    el("ul", { class: "names" }, name(a, "A"), name(b, "B")),
    difference && el("p", { id: "difference" }, el("b", {}, "A − B = ", interval(difference)), el("span", { class: "under" }, `${a.run.score_name}; Welch's 95 % interval over ${a.seeds.length} and ${b.seeds.length} seeds`)),
    doubts(a, b, difference).map((doubt) => el("p", { class: "notice" }, doubt)),
    section("Scores", comparisonTable(a, b), seedsPlot("last checkpoint, by seed", named, a.run.dataset === b.run.dataset ? behaviourOf(a.run) : null)),
    section("Settings that differ", differencesSection(differences(settings(a), settings(b)))),
    plots.length > 0 && section("Curves", el("div", { class: "plots" }, plots), el("p", { class: "note" }, `Training metrics: ${RANGE}`)),
    plots.length === 0 && section("Curves", el("p", { class: "note" }, "The two have logged no metric in common.")),
    pairs.length > 0 && section("Figures and films", pairs),
  ];
}
