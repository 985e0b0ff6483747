/** Colours in CIELAB, and the tones of a dye: hair/tones.py. */

import { clip, interpolate } from "./planes.js";
import tables from "./tables.json" with { type: "json" };

const numbers = tables.tones;
export const { LEVELS, OFFSET } = numbers;
const LIGHTNESS = Float64Array.from({ length: LEVELS }, (_, i) => (100 * i) / (LEVELS - 1));

// -------------------------------------------------------------------------------------------------- colours

const CURVE = 4096; // steps of the tables below, with values between them interpolated
const toLinear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
const fromLinear = (v) => (v <= 0.0031308 ? v * 12.92 : 1.055 * v ** (1 / 2.4) - 0.055);
const table = (length, compute) => Float32Array.from({ length: length + 2 }, (_, i) => compute(i / length));
const LINEAR = table(CURVE, toLinear), ROOTS = table(CURVE, Math.cbrt), BYTES = table(4 * CURVE, (v) => Math.round(255 * fromLinear(v)));

function lookUp(values, value) {
  const place = clip(value, 0, 1) * CURVE, first = place | 0;
  return values[first] + (place - first) * (values[first + 1] - values[first]);
}

const bend = (t) => (t > 0.05 && t < 1 ? lookUp(ROOTS, t) : t > 0.008856 ? Math.cbrt(t) : 7.787 * t + 16 / 116);
const unbend = (t) => (t > 0.206893 ? t * t * t : (t - 16 / 116) / 7.787);

/** The lightness, 0 to 100, of a colour from 0 to 255. */
export function lightnessOf(red, green, blue) {
  const y = 0.212671 * lookUp(LINEAR, red / 255) + 0.71516 * lookUp(LINEAR, green / 255) + 0.072169 * lookUp(LINEAR, blue / 255);
  return 116 * bend(y) - 16;
}

/** CIELAB of a linear colour from 0 to 1. @returns {number[]} `lab`, overwritten */
function linearToLab(r, g, b, lab) {
  const x = bend((0.412453 * r + 0.35758 * g + 0.180423 * b) / 0.950456);
  const y = bend(0.212671 * r + 0.71516 * g + 0.072169 * b);
  const z = bend((0.019334 * r + 0.119193 * g + 0.950227 * b) / 1.088754);
  lab[0] = 116 * y - 16;
  lab[1] = 500 * (x - y);
  lab[2] = 200 * (y - z);
  return lab;
}

/** CIELAB of a colour from 0 to 255. @returns {number[]} `lab`, overwritten: one array for many pixels is faster */
export function toLab(red, green, blue, lab = []) {
  return linearToLab(lookUp(LINEAR, red / 255), lookUp(LINEAR, green / 255), lookUp(LINEAR, blue / 255), lab);
}

/** The linear colour, clipped to 0 to 1, of one in CIELAB. @returns {number[]} `linear`, overwritten */
function labToLinear(lightness, a, b, linear) {
  const middle = (lightness + 16) / 116;
  const x = 0.950456 * unbend(middle + a / 500), y = unbend(middle), z = 1.088754 * unbend(middle - b / 200);
  linear[0] = clip(3.240479 * x - 1.53715 * y - 0.498535 * z, 0, 1);
  linear[1] = clip(-0.969256 * x + 1.875991 * y + 0.041556 * z, 0, 1);
  linear[2] = clip(0.055648 * x - 0.204043 * y + 1.057311 * z, 0, 1);
  return linear;
}

/** Writes red, green and blue, 0 to 255, of a colour in CIELAB to `pixels` at `place`. */
export function writeLab(lightness, a, b, pixels, place) {
  labToLinear(lightness, a, b, scratch);
  for (let c = 0; c < 3; c++) pixels[place + c] = BYTES[(scratch[c] * 4 * CURVE + 0.5) | 0];
}
const scratch = [0, 0, 0];

/** @param {string} color `#rrggbb` @returns {number[]} red, green and blue, 0 to 255 */
export const parseColor = (color) => [1, 3, 5].map((start) => parseInt(color.slice(start, start + 2), 16));

// -------------------------------------------------------------------------------------------------- tones

/** The index in a table for a lightness. */
export const level = (lightness) => clip(lightness * ((LEVELS - 1) / 100) + 0.5, 0, LEVELS - 1) | 0;

/**
 * A table of the lightness after dyeing for each lightness before.
 * @param {Float64Array} weights how much hair has each lightness
 * @param {number} target lightness of the dye
 * @param {number} spread standard deviation of the photo's lightness
 * @returns {Float32Array} rising, 0 to 100
 */
export function lightnessCurve(weights, target, spread) {
  const { MEANS, SPREADS, GLOSS, EXTRA_GLOSS, GLOSS_LIMIT, LEAST_SPREAD, UNDER_LIFT } = numbers;
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const average = (value) => {
    let sum = 0;
    for (let i = 0; i < LEVELS; i++) if (weights[i]) sum += weights[i] * value(i);
    return sum / total;
  };
  const mean = average((i) => LIGHTNESS[i]);
  let gain = interpolate(target, MEANS, SPREADS) / interpolate(mean, MEANS, SPREADS);
  gain *= 1 + EXTRA_GLOSS * clip((mean - target) / 30, 0, 1);
  target = clip(target - UNDER_LIFT * Math.max(0, target - mean), 1, 99);
  const room = Math.min(100 - target, GLOSS_LIMIT * interpolate(target, MEANS, GLOSS));
  const logs = LIGHTNESS.map((value) => Math.log(value + OFFSET)), middle = average((i) => logs[i]);
  const curve = new Float64Array(LEVELS);
  let shift = Math.log(target + OFFSET);
  for (let turn = 0; turn < 12; turn++) { // until mean and spread are right despite the limits
    for (let i = 0; i < LEVELS; i++) {
      const value = Math.exp(shift + gain * (logs[i] - middle)) - OFFSET, above = Math.max(value - target, 0);
      curve[i] = Math.max(Math.min(value, target) + above / Math.cbrt(1 + (above / room) ** 3), 0);
    }
    const now = average((i) => curve[i]);
    const left = Math.sqrt(average((i) => (curve[i] - now) ** 2));
    gain *= clip((LEAST_SPREAD * spread) / Math.max(left, 1e-6), 1, 1.2);
    shift += Math.log((target + OFFSET) / (now + OFFSET));
  }
  return Float32Array.from(curve);
}

/**
 * The colour of dyed hair at each lightness: shadows and gloss have less chroma.
 * @param {number[]} color red, green and blue, 0 to 255
 * @returns {Uint8Array} (LEVELS, 3)
 */
export function shades(color) {
  const { SHADOW_FALL_OFF, LIGHT_RISE, LIGHT_FALL_OFF, HUE_TURN, NATURAL_HUE, NATURAL_WIDTH } = numbers;
  const radians = (degrees) => (degrees * Math.PI) / 180;
  const [dyeLightness, a, b] = toLab(...color);
  const lightness = clip(dyeLightness, 1, 99), hue = Math.atan2(b, a);
  const [none, full] = NATURAL_WIDTH.map((width) => Math.cos(radians(width)));
  const natural = clip((Math.cos(hue - radians(NATURAL_HUE)) - none) / (full - none), 0, 1);
  const table = new Uint8Array(3 * LEVELS), back = [0, 0, 0];
  for (let i = 0; i < LEVELS; i++) {
    const L = LIGHTNESS[i], fromBlack = L / lightness, fromWhite = (100 - L) / (100 - lightness);
    const chroma = Math.hypot(a, b) * fromBlack ** (fromBlack < 1 ? SHADOW_FALL_OFF : LIGHT_RISE) * fromWhite ** LIGHT_FALL_OFF;
    const turned = hue + natural * radians(HUE_TURN) * (L - lightness);
    const across = chroma * Math.cos(turned), along = chroma * Math.sin(turned);
    // Less chroma where sRGB has no such colour, so that hues do not shift: the most that fits, by bisection.
    let share = 0;
    for (let step = 1; step >= 1 / 128; step /= 2) {
      const tried = share + step, [red, green, blue] = labToLinear(L, across * tried, along * tried, scratch);
      linearToLab(red, green, blue, back);
      const error = Math.max(Math.abs(back[0] - L), Math.abs(back[1] - across * tried), Math.abs(back[2] - along * tried));
      if (error <= 1) share = Math.min(tried, 1);
    }
    writeLab(L, across * share, along * share, table, 3 * i);
  }
  return table;
}

