"use strict";
// Curves with bands, and scores by seed, as SVG.

const COLOURS = 8;
const DASHES = ["", "7 3", "2 3", "9 3 2 3"];
const FRAME = { width: 440, height: 250, left: 56, right: 24, top: 12, bottom: 40 };
const ink = (i) => ({ stroke: `var(--c${i % COLOURS})`, "stroke-dasharray": DASHES[i % DASHES.length] });

/** Round numbers from `low` to `high`, about `wanted` of them. */
function ticks(low, high, wanted = 5) {
  const raw = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= raw);
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, i) => (first + i) * step);
}

function logTicks(low, high) {
  const powers = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) powers.push(10 ** power);
  const few = powers.length < 5 ? powers.flatMap((p) => [p, 2 * p, 5 * p]) : powers;
  const inside = few.filter((value) => value >= low && value <= high);
  return inside.filter((_, i) => i % Math.ceil(inside.length / 6) === 0);
}

/** `[low, high]` of the lines, and of the bands as far as those do not dwarf the lines. */
function extent(lines, bands) {
  const [low, high] = [Math.min(...lines), Math.max(...lines)];
  const span = high - low || Math.abs(high) || 1;
  const [least, most] = [Math.min(low, ...bands), Math.max(high, ...bands)];
  const pad = 0.05 * span;
  return [Math.max(least, low - span) - pad, Math.min(most, high + span) + pad];
}

/** A linear or logarithmic map of `[low, high]` to `[from, to]`. */
function scale(low, high, from, to, log = false) {
  const of = log ? Math.log : (value) => value;
  const [a, b] = [of(low), of(high)];
  return (value) => from + ((of(value) - a) / (b - a || 1)) * (to - from);
}

/** One path through the points, broken where a value is missing. */
function path(x, y) {
  let pen = "M";
  return x.map((px, i) => {
    if (y[i] == null) return (pen = "M"), "";
    const piece = `${pen}${px.toFixed(1)} ${y[i].toFixed(1)}`;
    pen = "L";
    return piece;
  }).join("");
}

function band(x, low, high) {
  const known = x.map((_, i) => i).filter((i) => low[i] != null && high[i] != null);
  if (known.length < 2) return "";
  const forth = known.map((i) => `${x[i].toFixed(1)} ${low[i].toFixed(1)}`);
  const back = known.reverse().map((i) => `${x[i].toFixed(1)} ${high[i].toFixed(1)}`);
  return `M${[...forth, ...back].join("L")}Z`;
}

let frames = 0; // each plot clips to a frame of its own

/** Lines `{name, x, mean, low, high, seeds}` over steps in one frame; `reference` is a level with a name. */
function plot(title, lines, { note, reference } = {}) {
  const { width, height, left, right, top, bottom } = FRAME;
  const flat = (keys) => lines.flatMap((l) => keys.flatMap((key) => l[key].flat())).filter((value) => value != null);
  const middle = [...flat(["mean", "seeds"]), ...(reference ? [reference.value] : [])];
  if (!middle.length) return null;
  const bounds = flat(["low", "high"]);
  const least = Math.min(...middle, ...bounds);
  const log = !reference && least > 0 && Math.max(...middle) / Math.min(...middle) > 50;
  const of = log ? Math.log : (value) => value;
  let [low, high] = extent(middle.map(of), bounds.filter((v) => !log || v > 0).map(of));
  if (log) [low, high] = [Math.exp(low), Math.exp(high)];
  const steps = lines.flatMap((line) => line.x);
  const [first, last] = [Math.min(0, ...steps), Math.max(...steps)];
  const x = scale(first, last || 1, left, width - right);
  const y = scale(low, high, height - bottom, top, log);
  const at = (values) => values.map((value) => (value == null || (log && value <= 0) ? null : y(value)));

  const clip = `frame-${frames++}`;
  const axes = [
    (log ? logTicks(low, high) : ticks(low, high)).map((value) => [
      svg("line", { class: "grid", x1: left, x2: width - right, y1: y(value), y2: y(value) }),
      svg("text", { class: "tick", x: left - 6, y: y(value) + 4, "text-anchor": "end" }, short(value)),
    ]),
    ticks(first, last || 1, 4).map((value) =>
      svg("text", { class: "tick", x: x(value), y: height - bottom + 17, "text-anchor": "middle" }, short(value))),
    svg("text", { class: "tick", x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, "step"),
    svg("line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }),
  ];
  const drawn = lines.map((line, i) => {
    const px = line.x.map(x);
    const alone = line.mean.filter((value) => value != null).length === 1;
    return [
      svg("path", { class: "band", d: band(px, at(line.low), at(line.high)), fill: ink(i).stroke }),
      line.seeds.map((seed) => svg("path", { class: "seed", d: path(px, at(seed)), stroke: ink(i).stroke })),
      svg("path", { class: "mean", d: path(px, at(line.mean)), ...ink(i) }),
      alone && px.map((p, k) => svg("circle", { cx: p, cy: at(line.mean)[k], r: 4, fill: ink(i).stroke })),
    ];
  });
  if (reference) drawn.push(svg("line", { class: "reference", x1: left, x2: width - right, y1: y(reference.value), y2: y(reference.value) }));
  const cursor = svg("line", { class: "cursor", y1: top, y2: height - bottom, visibility: "hidden" });
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": spoken(title, lines) },
    svg("clipPath", { id: clip }, svg("rect", { x: left, y: top - 4, width: width - left - right, height: height - top - bottom + 4 })),
    axes, svg("g", { "clip-path": `url(#${clip})` }, drawn, cursor));
  const named = (line, value) => `${lines.length > 1 ? `${line.name} ` : ""}${short(value)}`;
  const still = note ?? `last: ${lines.map((line) => named(line, line.mean.at(-1))).join(", ")}`;
  const readout = el("p", { class: "readout" }, still);
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    const wanted = ((event.clientX - box.left) / box.width) * width;
    const nearest = (line) => line.x.reduce((best, step, k) => (Math.abs(x(step) - wanted) < Math.abs(x(line.x[best]) - wanted) ? k : best), 0);
    const step = lines[0].x[nearest(lines[0])];
    fill(cursor, { x1: x(step), x2: x(step), visibility: "visible" }, []);
    const values = lines.map((line) => named(line, line.mean[nearest(line)]));
    readout.textContent = `step ${count(step)}: ${values.join(", ")}`;
  });
  picture.addEventListener("pointerleave", () => {
    cursor.setAttribute("visibility", "hidden");
    readout.textContent = still;
  });
  const names = lines.length > 1 || lines[0].seeds.length || reference;
  return el("figure", { class: "plot" }, el("figcaption", {}, title), picture, names && legend(lines, reference), readout);
}

/** What somebody who cannot see the picture hears. */
function spoken(title, lines) {
  const ends = lines.map((line) => {
    const known = line.mean.filter((value) => value != null);
    return `${line.name} from ${short(known[0])} to ${short(known.at(-1))} after ${count(line.x.at(-1))} steps`;
  });
  return `${title}: ${ends.join("; ")}`;
}

function legend(lines, reference) {
  const swatch = (attributes) => svg("svg", { viewBox: "0 0 26 8", class: "swatch", "aria-hidden": "true" }, svg("line", { x1: 0, x2: 26, y1: 4, y2: 4, ...attributes }));
  return el("ul", { class: "legend" },
    lines.map((line, i) => el("li", {}, swatch({ class: "mean", ...ink(i) }), line.name)),
    reference && el("li", {}, swatch({ class: "reference" }), `${reference.name} ${fixed(reference.value)}`));
}

/** A row for each of `results` `{name, seeds, score}`: its interval as a bar, its seeds as dots, its mean as a stroke. */
function seedsPlot(title, results, reference) {
  const rows = results.filter((result) => result.score && result.seeds?.length);
  if (!rows.length) return null;
  const width = Math.min(720, document.documentElement.clientWidth - 40);
  const [edge, each, end] = [12, 46, 28];
  const height = rows.length * each + end;
  const level = reference ? [reference.value] : [];
  const bounds = rows.flatMap((row) => row.score.slice(1)).filter((value) => value != null);
  const [low, high] = extent([...rows.flatMap((row) => [...row.seeds, row.score[0]]), ...level], bounds);
  const x = scale(low, high, edge, width - edge);
  const inside = (value) => Math.max(edge, Math.min(width - edge, x(value)));
  const parts = rows.map((row, i) => {
    const y = i * each + 32;
    const { stroke } = ink(i);
    const bar = !missing(row.score[1]) && svg("line", { class: "bar", stroke, x1: inside(row.score[1]), x2: inside(row.score[2]), y1: y, y2: y });
    return [
      svg("text", { class: "row", x: edge, y: y - 14 }, `${row.name}: ${interval(row.score)}`), bar,
      row.seeds.map((seed) => svg("circle", { cx: x(seed), cy: y, r: 4, fill: stroke, class: "dot" })),
      svg("line", { class: "mark", stroke, x1: x(row.score[0]), x2: x(row.score[0]), y1: y - 8, y2: y + 8 }),
    ];
  });
  const grid = ticks(low, high, width / 90).map((value) => [
    svg("line", { class: "grid", x1: x(value), x2: x(value), y1: 0, y2: height - end + 4 }),
    svg("text", { class: "tick", x: x(value), y: height - 8, "text-anchor": "middle" }, short(value)),
  ]);
  const line = reference && svg("line", { class: "reference", x1: x(reference.value), x2: x(reference.value), y1: 0, y2: height - end + 4 });
  const heard = rows.map((row) => `${row.name} ${interval(row.score)}, seeds ${row.seeds.map((s) => fixed(s)).join(", ")}`);
  return el("figure", { class: "plot seeds" }, el("figcaption", {}, title),
    svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${title}: ${heard.join("; ")}` }, grid, line, parts),
    el("p", { class: "readout" }, "Dots: seeds. Stroke: mean. Bar: 95 % interval, cut at the frame.",
      reference && ` Dashed: ${reference.name} ${fixed(reference.value)}.`));
}
