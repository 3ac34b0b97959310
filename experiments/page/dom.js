"use strict";
// Elements and numbers. Text of runs only ever becomes a text node: it cannot be markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return node;
}

const el = (name, attributes = {}, ...children) => fill(document.createElement(name), attributes, children);
const svg = (name, attributes = {}, ...children) => fill(document.createElementNS(SVG, name), attributes, children);

const NONE = "–";
const missing = (value) => value == null || value === "" || Number.isNaN(value);
const fixed = (value, digits = 1) => (missing(value) ? NONE : value.toFixed(digits).replace(/^-(0\.?0*)$/, "$1"));
const count = (value) => (missing(value) ? NONE : Math.round(value).toLocaleString("en-US"));
const duration = (minutes) => fixed(minutes, minutes < 100 ? 1 : 0);
const milliseconds = (seconds) => (missing(seconds) ? NONE : `${short(1000 * seconds)} ms`);

/** Three digits, as axes and readouts need them. */
function short(value) {
  if (missing(value)) return NONE;
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(1).replace("e+", "e");
  if (size >= 1000) return count(value);
  return String(Number(value.toPrecision(3)));
}

/** `[mean, low, high]` as text, without bounds where there are none. */
function interval(score) {
  if (!score || missing(score[0])) return NONE;
  return missing(score[1]) ? fixed(score[0]) : `${fixed(score[0])} [${fixed(score[1])}, ${fixed(score[2])}]`;
}

/** A value of a configuration, as JSON without the quotes of a plain word. */
const shown = (value) => (value === undefined ? NONE : typeof value === "string" ? value : JSON.stringify(value));

function copyButton(text) {
  const button = el("button", { type: "button", class: "copy" }, "Copy");
  button.addEventListener("click", async () => {
    button.textContent = (await copy(text)) ? "Copied" : "Select and copy by hand";
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
  return button;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Browsers that grant a page from disk no clipboard still copy what is selected.
    const area = el("textarea", { class: "hidden" });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}
