"use strict";
// One run: how it went, what made it, what it drew.

/** Lines of the same metric in one plot; phases apart, unless they are arms of the run. */
function grouped(curves) {
  const groups = new Map();
  for (const line of curves) {
    const title = line.arm || line.metric === "score" ? line.metric : `${line.metric} · ${line.phase}`;
    groups.set(title, [...(groups.get(title) ?? []), { ...line, name: line.phase }]);
  }
  const rank = ([title]) => (/loss|error/.test(title) ? 0 : 1);
  return [...groups].filter(([title]) => title !== "score").sort((a, b) => rank(a) - rank(b));
}

const behaviourOf = (run) => (missing(run.behaviour) ? null : { name: "behaviour policy", value: run.behaviour });
const RANGE = "Line: mean. Band: range over seeds, and over neighbouring steps of long runs.";
const STUDENT = "Thick: mean. Thin: seeds. Band: Student's t, 95 %, cut at the frame.";

function curvesSection(run) {
  const score = run.curves.filter((line) => line.metric === "score").map((line) => ({ ...line, name: line.phase }));
  const plots = [score.length && plot(`${run.score_name ?? "score"} by update`, score, { note: STUDENT, reference: behaviourOf(run) })];
  plots.push(...grouped(run.curves).map(([title, lines]) => plot(title, lines)));
  const drawn = plots.filter(Boolean);
  return drawn.length && section("Curves", el("div", { class: "plots" }, drawn), grouped(run.curves).length > 0 && el("p", { class: "note" }, `Training metrics: ${RANGE}`));
}

const section = (title, ...content) => el("section", {}, el("h3", {}, title), content);

function facts(pairs) {
  const known = pairs.filter(([, value]) => !missing(value) && value !== NONE);
  return el("dl", { class: "facts" }, known.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

/** The element of a picture or a film; its data stand in the page apart, and are read when they are shown. */
function media(file, label) {
  if (!file.id) return el("p", { class: "note" }, el("code", {}, file.path), ` is not shown: ${file.why} (${fixed(file.bytes / 1e6)} MB)`);
  const source = document.getElementById(file.id).textContent;
  const shownAs = file.name.endsWith(".mp4")
    ? el("video", { src: source, controls: true, muted: true, playsinline: true, "aria-label": label })
    : el("img", { src: source, alt: label });
  // What is wide takes a row of its own, where a phone can scroll in it.
  shownAs.addEventListener("load", () => shownAs.naturalWidth > 2.2 * shownAs.naturalHeight && fill(shownAs.closest(".media"), { class: "media strip", tabindex: 0 }, []));
  const moves = file.name.endsWith(".gif") && matchMedia("(prefers-reduced-motion: reduce)").matches;
  return el("figure", { class: "media" }, el("figcaption", {}, file.name), moves ? el("details", {}, el("summary", {}, "Play"), shownAs) : shownAs);
}

/** A configuration as a tree that folds. */
function tree(value) {
  return el("ul", { class: "tree" }, Object.entries(value).map(([key, inner]) => {
    const branch = inner !== null && typeof inner === "object" && !Array.isArray(inner);
    return el("li", {}, branch
      ? el("details", { open: true }, el("summary", {}, key), tree(inner))
      : [el("span", { class: "key" }, key), " ", el("code", {}, shown(inner))]);
  }));
}

function commandBlock(command) {
  return command && el("div", { class: "command" }, el("pre", { tabindex: 0, "aria-label": "Command" }, command), copyButton(command));
}

function detailsView(row) {
  const { run } = row;
  const several = run.results.length > 1;
  const named = run.results.map((result) => ({ ...result, name: several ? result.arm : result.method }));
  const { packages = {}, devices, cores, python, sha256, hash } = run.facts;
  return [
    el("p", { class: "back" }, el("a", { href: link({}) }, "← All runs")),
    el("h2", { tabindex: -1 }, several ? run.experiment : row.method, " on ", run.dataset),
    el("p", { class: "sub" }, pill(run.status), " ", run.preset === "smoke" && [pill("smoke"), " "], el("code", {}, run.path || run.id)),
    run.error && el("p", { class: "notice error", role: "alert" }, run.error),
    run.status !== "finished" && run.progress && el("p", { class: "notice" }, run.progress),
    facts([
      ...named.map((result) => [several ? `${result.name}, ${run.score_name}` : run.score_name ?? "score", interval(result.score)]),
      ["seeds", count(row.seeds?.length)], ["updates", count(run.updates)], ["episodes a seed", count(run.episodes)],
      ["minutes of training", duration(row.minutes)], ["latency, median", milliseconds(run.latency)], ["task", run.task],
      ["preset", run.preset], ["started", run.started],
    ]),
    run.command && section("Command", commandBlock(run.command)),
    row.score && section("Scores", seedsPlot(`${run.score_name}, last checkpoint`, named, behaviourOf(run))),
    curvesSection(run),
    run.files.length > 0 && section("Figures and films", el("div", { class: "gallery" }, run.files.map((file) => media(file, `${file.name} of ${row.method} on ${run.dataset}`)))),
    run.report && section("Report", el("pre", { tabindex: 0, "aria-label": "Report" }, run.report)),
    Object.keys(run.config).length > 0 && section("Configuration", el("details", { class: "fold", open: true }, el("summary", {}, "Every setting"), tree(run.config))),
    section("Made with", facts([
      ["commit", run.commit], ["configuration", hash], ["devices", devices?.join?.(", ")], ["cores", cores], ["python", python],
      ...Object.entries(packages), ["data, SHA-256", sha256 && `${String(sha256).slice(0, 16)}…`],
    ].map(([name, value]) => [name, missing(value) ? null : shown(value)]))),
  ];
}
