"use strict";
// Welch's interval of a difference of means, as jdp.evaluation.difference computes it.

/** The 97.5 % quantile of Student's t for `freedom` >= 1, linear between the entries of `table` (over 1 / freedom). */
function quantile(freedom, table) {
  const place = Math.min(1 / freedom, 1) * (table.length - 1);
  const left = Math.min(Math.floor(place), table.length - 2);
  return table[left] + (place - left) * (table[left + 1] - table[left]);
}

function meanAndError(values) {
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  const squares = values.reduce((total, value) => total + (value - mean) ** 2, 0);
  return { mean, variance: squares / (values.length - 1) / values.length };
}

/** `[mean of a - mean of b, low, high]` at 95 %, one value a seed; bounds are null with fewer than two seeds. */
function welch(a, b, table) {
  if (!a?.length || !b?.length) return null;
  const [first, second] = [meanAndError(a), meanAndError(b)];
  const mean = first.mean - second.mean;
  if (Math.min(a.length, b.length) < 2) return [mean, null, null];
  const total = first.variance + second.variance;
  if (total === 0) return [mean, mean, mean];
  const freedom = total ** 2 / (first.variance ** 2 / (a.length - 1) + second.variance ** 2 / (b.length - 1));
  const half = quantile(freedom, table) * Math.sqrt(total);
  return [mean, mean - half, mean + half];
}
