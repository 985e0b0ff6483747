/** Dyes hair in one colour, with or without bleach: hair/dye.py. */

import { boxBlur, clip, crop, distances, enlarge, gaussianBlur, neighbours, plane, round, shrink, split, times } from "./planes.js";
import { LEVELS, OFFSET, level, lightnessCurve, lightnessOf, parseColor, shades, toLab, writeLab } from "./tones.js";
import { hairOpacity } from "./opacity.js";
import tables from "./tables.json" with { type: "json" };

const numbers = tables.dye;
/** @typedef {{color: string, strength: number, bleach: boolean}} Dye  `#rrggbb`; 0 to 1; whether lightness changes. */

/**
 * Measures the hair of a photo once, so that every dye afterwards is quick.
 * @param {import("./planes.js").Photo} photo
 * @param {import("./planes.js").Plane} probabilities of the same size
 * @param {number} threshold probability at which the dye covers half of a pixel
 * @param {number} [reduced] longer side of the hair on which colours are measured
 * @returns {?object} for `recolor`; null if there is no hair
 */
export function measureHair(photo, probabilities, threshold, reduced = numbers.SMALL) {
  if (!probabilities.data.some((value) => value >= threshold)) return null;
  const opacity = hairOpacity(photo, probabilities, threshold);
  for (let i = 0; i < opacity.length; i++) if (probabilities.data[i] < numbers.SURELY_NOT) opacity[i] = 0;
  const box = boundingBox(opacity, photo.width);
  if (!box) return null;
  const part = crop(photo, box), cover = crop({ width: photo.width, height: photo.height, data: opacity }, box);
  return { photo, box, part, cover: cover.data, ...measureReduced(part, cover, reduced) };
}

/**
 * Dyes the hair.
 * @param {object} hair from `measureHair`
 * @param {Dye} dye
 * @returns {import("./planes.js").Photo} a new photo; pixels that are clearly not hair are not changed
 */
export function recolor(hair, { color, strength, bleach }) {
  const { photo, box, part } = hair;
  const dyed = photo.data.slice();
  if (strength > 0) {
    const pixels = (bleach ? bleached : tinted)(hair, parseColor(color), strength);
    for (let y = 0; y < box.height; y++) {
      dyed.set(pixels.subarray(4 * y * part.width, 4 * (y + 1) * part.width), 4 * ((box.top + y) * photo.width + box.left));
    }
  }
  return { width: photo.width, height: photo.height, data: dyed };
}

function boundingBox(opacity, width) {
  let left = width, right = -1, top = -1, bottom = -1;
  for (let i = 0, y = 0; i < opacity.length; y++) {
    for (let x = 0; x < width; x++, i++) {
      if (!opacity[i]) continue;
      if (top < 0) top = y;
      bottom = y;
      if (x < left) left = x;
      if (x > right) right = x;
    }
  }
  return top < 0 ? null : { left, top, width: right - left + 1, height: bottom - top + 1 };
}

// -------------------------------------------------------------------------------------------------- without bleach

/** Changes hue and chroma to those of the dye; lightness, and with it every strand, stays. */
function tinted({ part, cover }, color, strength) {
  const [goal, goalA, goalB] = toLab(...color);
  const darkest = Math.max(goal, 1), brightest = Math.max(100 - goal, 1);
  const result = part.data.slice(), lab = [0, 0, 0];
  for (let i = 0; i < cover.length; i++) {
    if (!cover[i]) continue;
    const share = (cover[i] * strength) / 255;
    const [L, a, b] = toLab(result[4 * i], result[4 * i + 1], result[4 * i + 2], lab);
    // Near black and white, sRGB cannot show the full chroma of the dye; outside the gamut, hues would shift.
    const room = clip(Math.min(L / darkest, (100 - L) / brightest), 0, 1) ** numbers.GAMUT_FALL_OFF;
    writeLab(L, a + share * (goalA * room - a), b + share * (goalB * room - b), result, 4 * i);
  }
  return result;
}

// -------------------------------------------------------------------------------------------------- measuring

const NEARBY = 7; // numbers of each reduced pixel for `mixer`: colours of hair and background nearby, evening

/** What is measured on the reduced hair, and its evened lightness at its full size. */
function measureReduced(part, cover, reduced) {
  const scale = Math.min(1, reduced / Math.max(part.width, part.height));
  const width = Math.max(1, round(part.width * scale)), height = Math.max(1, round(part.height * scale));
  const small = shrink(part, width, height), side = Math.max(width, height);
  const alpha = shrink(cover, width, height).data;
  if (!alpha.some((value) => value)) alpha.fill(1); // faint hair may round to none
  const lightness = lightnessPlane(small), most = alpha.reduce((a, b) => Math.max(a, b));
  const weight = plane(width, height, (i) => (alpha[i] / most) ** 4); // the edge, where colours are mixed, counts little
  const total = weight.data.reduce((sum, value) => sum + value, 0);
  const average = (value) => weight.data.reduce((sum, share, i) => sum + share * value(i), 0) / total;

  const logs = plane(width, height, (i) => Math.log(lightness.data[i] + OFFSET)), middle = average((i) => logs.data[i]);
  const slow = smoothWithin([logs], weight, numbers.SLOW * side + 0.3)[0];
  const evening = plane(width, height, (i) => Math.exp(-numbers.EVEN * (slow.data[i] - middle)));
  const usual = average((i) => lightness.data[i]);
  const spread = Math.sqrt(average((i) => (lightness.data[i] - usual) ** 2));
  const weights = new Float64Array(LEVELS);
  for (let i = 0; i < logs.data.length; i++) {
    weights[level((lightness.data[i] + OFFSET) * evening.data[i] - OFFSET)] += weight.data[i];
  }
  const mean = weights.reduce((sum, value, i) => sum + (value * i * 100) / (LEVELS - 1), 0) / total;
  const factors = enlarge(evening, part.width, part.height).data;
  const evened = lightnessPlane(part);
  for (let i = 0; i < factors.length; i++) evened.data[i] = (evened.data[i] + OFFSET) * factors[i] - OFFSET;
  const { doubt, hair, background } = measureEdge(small, alpha);
  const planes = [...hair, ...background, evening], nearby = new Float32Array(NEARBY * width * height);
  planes.forEach(({ data }, channel) => data.forEach((value, i) => (nearby[NEARBY * i + channel] = value)));
  return { spread, weights, mean, evened, doubt, nearby, small: { width, height } };
}

function lightnessPlane({ width, height, data }) {
  const result = plane(width, height);
  for (let i = 0; i < width * height; i++) result.data[i] = lightnessOf(data[4 * i], data[4 * i + 1], data[4 * i + 2]);
  return result;
}

/** Doubt of hair that the mask takes for sure, and the colours of hair and background near each pixel. */
function measureEdge(small, alpha) {
  const { width, height } = small, side = Math.max(width, height);
  const fromEdge = distances(width, height, (i) => alpha[i] >= 254);
  const rim = fromEdge.map((distance) => numbers.RIM * Math.exp(-((Math.min(distance, side) / (numbers.RIM_WIDTH * side)) ** 2)));
  const colors = split(small);
  const hair = nearbyColor(colors, plane(width, height, (i) => ((alpha[i] / 255) * (1 - rim[i])) ** 8));
  const background = nearbyColor(colors, plane(width, height, (i) => (1 - alpha[i] / 255) ** 4));
  const doubt = plane(width, height);
  for (let i = 0; i < doubt.data.length; i++) {
    if (rim[i] < 0.001) continue;
    const [own, other] = [hair, background].map((planes) => lightnessOf(...planes.map(({ data }) => clip(Math.round(data[i]), 0, 255))));
    doubt.data[i] = 255 * rim[i] * clip((other - own) / numbers.RIM_LIFT, 0, 1);
  }
  return { doubt, hair, background };
}

/** Blurs planes within the hair, ignoring pixels outside; far from all hair, the result is the mean. */
function smoothWithin(planes, weight, sigma) {
  const total = Math.max(weight.data.reduce((sum, value) => sum + value, 0), 1e-9);
  const means = planes.map(({ data }) => data.reduce((sum, value, i) => sum + value * weight.data[i], 0) / total);
  return blurWithin(planes, weight, sigma, 1e-3, (channel) => means[channel]);
}

/** The weighted mean colour around each pixel; far from all weight, the nearest colour. */
function nearbyColor(colors, weight) {
  const [far, ...nearer] = numbers.COLOR_BLURS.map((blur) => blur * Math.max(weight.width, weight.height) + 0.3);
  return nearer.reduce(
    (found, sigma) => blurWithin(colors, weight, sigma, 0.02, (channel, i) => found[channel].data[i]),
    smoothWithin(colors, weight, far),
  );
}

/** Blurs planes by their weight; a `little` weight of what `otherwise` returns for a plane and a pixel is added. */
function blurWithin(planes, weight, sigma, little, otherwise) {
  const amount = gaussianBlur(weight, sigma).data;
  return planes.map((source, channel) => {
    const blurred = gaussianBlur(times(source, weight), sigma), { data } = blurred;
    for (let i = 0; i < data.length; i++) data[i] = (data[i] + little * otherwise(channel, i)) / (amount[i] + little);
    return blurred;
  });
}

// -------------------------------------------------------------------------------------------------- with bleach

/** Changes lightness, hue and chroma to those of the dye; lighter strands stay lighter than the others. */
function bleached(hair, color, strength) {
  const { part, cover, mean, evened } = hair;
  const target = toLab(...color)[0];
  const plan = { curve: lightnessCurve(hair.weights, target, hair.spread), shade: shadesOf(color), strength };
  plan.lift = clip((target - mean) / numbers.RIM_LIFT, 0, 1);
  const doubt = plan.lift * clip((numbers.FAIR - mean) / numbers.RIM_LIFT, 0, 1);
  const doubts = doubt > 0 ? (hair.doubts ??= enlarge(hair.doubt, part.width, part.height).data) : null;
  const result = part.data.slice(), levels = dyedLevels(hair, plan.curve), mix = mixer(hair, plan);
  for (let i = 0; i < cover.length; i++) {
    let amount = cover[i];
    if (!amount) continue;
    if (doubts) {
      const bright = clip((evened.data[i] - mean) / numbers.DOUBT_FADE, 0, 1);
      amount = Math.min(amount, Math.floor(255 - bright * doubt * doubts[i]));
    }
    if (amount === 255) {
      for (let c = 0; c < 3; c++) {
        const before = result[4 * i + c];
        result[4 * i + c] = before + strength * (plan.shade[3 * levels[i] + c] - before);
      }
    } else if (amount > 0) {
      mix(result, i, amount);
    }
  }
  return result;
}

let known = { color: "" };

/** `shades`, which are the same for one frame of the camera after the other. */
function shadesOf(color) {
  if (known.color !== String(color)) known = { color: String(color), table: shades(color) };
  return known.table;
}

/** The level of lightness of each pixel after dyeing. @returns {Uint16Array} */
function dyedLevels(hair, curve) {
  const evened = hair.evened.data, levels = new Uint16Array(evened.length);
  const after = Uint16Array.from(curve, level);
  let steepest = 0;
  for (let i = 1; i < LEVELS; i++) steepest = Math.max(steepest, curve[i] - curve[i - 1]);
  if ((steepest * (LEVELS - 1)) / 100 <= numbers.STEEP) {
    for (let i = 0; i < levels.length; i++) levels[i] = after[level(evened[i])];
    return levels;
  }
  // Details as small as noise and JPEG blocks are amplified less than the rest.
  const base = (hair.base ??= denoised(hair.evened)).data;
  const gain = curve.map((_, i) => {
    const low = Math.max(i - 1, 0), high = Math.min(i + 1, LEVELS - 1);
    return Math.min((((curve[high] - curve[low]) / (high - low)) * (LEVELS - 1)) / 100, numbers.DETAIL_GAIN);
  });
  for (let i = 0; i < levels.length; i++) {
    const place = level(base[i]);
    levels[i] = level(Math.min(gain[place] * (evened[i] - base[i]) + curve[place], curve[LEVELS - 1]));
  }
  return levels;
}

/** Lightness without details as faint as noise: a guided filter with itself as guide. */
function denoised(lightness) {
  const { width, height, data } = lightness, radius = numbers.NOISE_RADIUS;
  const mean = boxBlur(lightness, radius).data;
  const square = boxBlur(times(lightness, lightness), radius).data;
  const slope = plane(width, height), offset = plane(width, height);
  for (let i = 0; i < mean.length; i++) {
    const variance = Math.max(square[i] - mean[i] * mean[i], 0);
    slope.data[i] = variance / (variance + numbers.NOISE ** 2);
    offset.data[i] = mean[i] - slope.data[i] * mean[i];
  }
  const slopes = boxBlur(slope, radius).data, result = boxBlur(offset, radius);
  for (let i = 0; i < mean.length; i++) result.data[i] += slopes[i] * data[i];
  return result;
}

/** A function that dyes the hair's share of pixel `i`, which the mask covers by `amount` of 255, in `pixels`. */
function mixer({ part, small, nearby }, { curve, shade, strength, lift }) {
  const across = neighbours(small.width, part.width), down = neighbours(small.height, part.height);
  const near = new Float32Array(NEARBY), pure = new Float32Array(3); // the same for all pixels: it is faster
  return (pixels, i, amount) => {
    const x = i % part.width, y = (i - x) / part.width, u = across.share[x], v = down.share[y];
    const above = down.first[y] * small.width, below = down.second[y] * small.width;
    const a = NEARBY * (above + across.first[x]), b = NEARBY * (above + across.second[x]);
    const c = NEARBY * (below + across.first[x]), d = NEARBY * (below + across.second[x]);
    for (let k = 0; k < NEARBY; k++) {
      const left = nearby[a + k] + v * (nearby[c + k] - nearby[a + k]);
      near[k] = left + u * (nearby[b + k] + v * (nearby[d + k] - nearby[b + k]) - left);
    }
    const share = opacityByColor(pixels, 4 * i, amount, near, lift);
    // The hair in a mixed pixel: its mean nearby, with what the pixel has beside the two means (Forte 2021).
    for (let k = 0; k < 3; k++) {
      const rest = pixels[4 * i + k] - share * near[k] - (1 - share) * near[3 + k];
      pure[k] = clip(near[k] + share * rest, 0, 255);
    }
    const lightness = (lightnessOf(pure[0], pure[1], pure[2]) + OFFSET) * near[6] - OFFSET;
    const place = 3 * level(curve[level(lightness)]);
    for (let k = 0; k < 3; k++) pixels[4 * i + k] += share * strength * (shade[place + k] - pure[k]);
  };
}

/** Of each `amount`: what the mask says, as odds, and how far from certain it is. */
const MASK_ODDS = Float32Array.from({ length: 256 }, (_, n) => (n / 255 / (1 - n / 255 + 1e-3)) ** numbers.MASK_SAYS);
// Where the mask is nearly certain, trust fades in and out, so that its end is not seen in hair that goes on.
const MASK_DOUBT = Float32Array.from({ length: 256 }, (_, n) => clip(Math.min(n, 255 - n) / 255 / numbers.CERTAIN, 0, 1));

/** Corrects an opacity by where a pixel's colour lies between background and hair; at most by `most`. */
function opacityByColor(pixels, place, amount, near, most) {
  let square = 0, along = 0;
  for (let k = 0; k < 3; k++) {
    const span = near[k] - near[3 + k];
    square += span * span;
    along += (pixels[place + k] - near[3 + k]) * span;
  }
  const seen = clip(along / (square + 100), 0, 1), { EVIDENCE, FAR_COLORS } = numbers;
  const odds = (MASK_ODDS[amount] * (seen + EVIDENCE)) / (1 - seen + EVIDENCE);
  const trust = most * Math.min(Math.sqrt(square) / FAR_COLORS, 1) * MASK_DOUBT[amount];
  return amount / 255 + trust * (odds / (1 + odds) - amount / 255);
}
