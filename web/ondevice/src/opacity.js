/** How much of each pixel is hair, single strands included: hair/opacity.py and the guided filter of hair/refine.py. */

import { boxBlur, clip, crop, interpolate, neighbours, plane, round, shrink, split } from "./planes.js";
import tables from "./tables.json" with { type: "json" };

const { STRANDS_EDGE, REACH, SHARPEST, WIDEST, MEASURED_LINES, SOFTNESS } = tables.opacity;
const { REDUCED_RADIUS, REDUCED_PIXELS, DECIDED, FADE, EXPLAINED, FLAT } = tables.refine;
const STEPS = 1023; // of the table of opacities

/**
 * @param {import("./planes.js").Photo} photo
 * @param {import("./planes.js").Plane} probabilities of the same size
 * @param {number} threshold probability at which hair is half transparent
 * @returns {Uint8ClampedArray} one byte a pixel
 */
export function hairOpacity(photo, probabilities, threshold) {
  const low = STRANDS_EDGE * threshold, high = 1 - STRANDS_EDGE * (1 - threshold);
  const table = Uint8Array.from({ length: STEPS + 1 }, (_, i) =>
    round(interpolate(i / STEPS, [0, low, threshold, high, 1], [0, 0, 127.5, 255, 255])));
  const opacity = new Uint8ClampedArray(probabilities.data.length);
  for (let i = 0; i < opacity.length; i++) opacity[i] = table[Math.floor(probabilities.data[i] * STEPS)];
  const radius = strandReach(probabilities, threshold);
  if (radius) guidedFilter(photo, probabilities, radius, (i, value) => (opacity[i] = table[Math.floor(value * STEPS)]));
  return opacity;
}

/** How far from the hair's edge to look for strands, in pixels; 0 if there is no edge. */
function strandReach({ width, height, data }, threshold) {
  const rises = [];
  let inside = 0;
  const measure = (lines, count, line, step) => {
    for (let n = 0; n < lines; n += Math.max(1, Math.floor(lines / MEASURED_LINES))) {
      for (let k = 0; k < count; k++) {
        const value = data[n * line + k * step];
        inside += value >= threshold;
        if (!k) continue;
        const before = data[n * line + (k - 1) * step];
        if (value >= threshold !== before >= threshold) rises.push(Math.abs(value - before));
      }
    }
  };
  measure(height, width, width, 1);
  measure(width, height, 1, width);
  if (!rises.length) return 0;
  rises.sort((a, b) => a - b);
  const place = (SHARPEST / 100) * (rises.length - 1), first = Math.floor(place);
  const rise = rises[first] + (place - first) * ((rises[first + 1] ?? rises[first]) - rises[first]);
  return Math.max(1, round(Math.min(REACH / rise, WIDEST * ((2 * inside) / rises.length))));
}

/** Calls `set(index, probability)` for the pixels that change; where colours hardly explain the hair, none does. */
function guidedFilter(photo, probabilities, radius, set) {
  const { width, height } = photo;
  const factor = Math.max(1, Math.floor(radius / REDUCED_RADIUS), round(Math.sqrt((width * height) / REDUCED_PIXELS)));
  const stepX = Math.min(factor, width), stepY = Math.min(factor, height);
  const w = Math.floor(width / stepX), h = Math.floor(height / stepY);
  const whole = { left: 0, top: 0, width: w * stepX, height: h * stepY };
  const cells = (picture) => shrink(factor > 1 ? crop(picture, whole) : picture, w, h);
  const source = cells(probabilities), guide = split(cells(photo));
  for (const channel of guide) channel.data.forEach((value, i, data) => (data[i] = value / 255));
  const { lines, explained } = fit(guide, source, Math.max(1, round(radius / factor)));
  const undecided = plane(w, h, (i) => +(source.data[i] >= DECIDED && source.data[i] <= 1 - DECIDED));
  const trust = boxBlur(undecided, Math.max(1, round(radius / factor))).data.map((share, i) =>
    Math.min(FADE * share, 1) * clip((explained[i] - EXPLAINED[0]) / (EXPLAINED[1] - EXPLAINED[0]), 0, 1));
  const [red, green, blue, offset] = lines.map(({ data }) => data.map((value, i) => value * trust[i]));
  // The cells' middles, for the pixels between them: of whole cells only.
  const across = neighbours(w, whole.width), down = neighbours(h, whole.height);
  for (let y = 0; y < height; y++) {
    const cell = Math.min(Math.floor(y / stepY), h - 1) * w, row = Math.min(y, whole.height - 1);
    const above = down.first[row] * w, below = down.second[row] * w, v = down.share[row];
    for (let x = 0; x < width; x++) {
      if (!(trust[cell + Math.min(Math.floor(x / stepX), w - 1)] > 0)) continue;
      const column = Math.min(x, whole.width - 1), u = across.share[column];
      const a = above + across.first[column], b = above + across.second[column];
      const c = below + across.first[column], d = below + across.second[column];
      const p = (1 - u) * (1 - v), q = u * (1 - v), r = (1 - u) * v, s = u * v;
      const i = y * width + x;
      const between = (data) => p * data[a] + q * data[b] + r * data[c] + s * data[d];
      const value = between(offset) + (1 - between(trust)) * probabilities.data[i] +
        (between(red) * photo.data[4 * i] + between(green) * photo.data[4 * i + 1] + between(blue) * photo.data[4 * i + 2]) / 255;
      set(i, clip(value, 0, 1));
    }
  }
}

/** Fits `source` by a linear function of `guide` around each pixel: slopes and offset, and how much they explain. */
function fit(guide, source, radius) {
  const { width, height } = source;
  const mean = (compute) => boxBlur(plane(width, height, compute), radius).data;
  const means = guide.map(({ data }) => mean((i) => data[i])), level = mean((i) => source.data[i]);
  const square = mean((i) => source.data[i] ** 2);
  const covariance = guide.map(({ data }) => mean((i) => data[i] * source.data[i]));
  const products = {};
  for (let j = 0; j < 3; j++) {
    for (let k = j; k < 3; k++) products[`${j}${k}`] = mean((i) => guide[j].data[i] * guide[k].data[i]);
  }
  const lines = [0, 1, 2, 3].map(() => plane(width, height)), explained = new Float32Array(width * height);
  for (let i = 0; i < explained.length; i++) {
    const m = means.map((data) => data[i]), c = covariance.map((data, j) => data[i] - m[j] * level[i]);
    const entry = (j, k) => products[`${j}${k}`][i] - m[j] * m[k] + (j === k ? SOFTNESS : 0);
    const slopes = solve([[entry(0, 0), entry(0, 1), entry(0, 2)], [0, entry(1, 1), entry(1, 2)], [0, 0, entry(2, 2)]], c);
    slopes.forEach((slope, j) => (lines[j].data[i] = slope));
    lines[3].data[i] = level[i] - slopes[0] * m[0] - slopes[1] * m[1] - slopes[2] * m[2];
    explained[i] = (slopes[0] * c[0] + slopes[1] * c[1] + slopes[2] * c[2]) / (square[i] - level[i] ** 2 + FLAT);
  }
  return { lines: lines.map((line) => boxBlur(line, radius)), explained };
}

/** Solves matrix · x = vector; of the symmetric `matrix`, the upper half is given, and overwritten. */
function solve(matrix, vector) {
  const x = [...vector];
  for (let i = 0; i < 3; i++) {
    for (let j = i + 1; j < 3; j++) {
      const share = matrix[i][j] / matrix[i][i];
      x[j] -= share * x[i];
      for (let k = j; k < 3; k++) matrix[j][k] -= share * matrix[i][k];
    }
  }
  for (const i of [2, 1, 0]) {
    for (let k = i + 1; k < 3; k++) x[i] -= matrix[i][k] * x[k];
    x[i] /= matrix[i][i];
  }
  return x;
}
