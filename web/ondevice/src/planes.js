/**
 * Arithmetic on planes, as OpenCV does it: a plane is an array of `width` × `height` numbers, row by row.
 * Pixels beyond the border are those inside it, mirrored (BORDER_REFLECT_101), unless it says otherwise.
 */

/** @typedef {{width: number, height: number, data: Uint8ClampedArray}} Photo  RGBA, opaque, four bytes a pixel. */
/** @typedef {{width: number, height: number, data: Float32Array}} Plane */

/** Rounds halves to the even number, as Python does. */
export function round(value) {
  const low = Math.floor(value);
  return value - low === 0.5 ? low + (low & 1) : Math.round(value);
}

export const clip = (value, low, high) => (value < low ? low : value > high ? high : value);

/** A value between the points (xs, ys), with xs rising; beyond them, that of the nearest one. */
export function interpolate(value, xs, ys) {
  if (value <= xs[0]) return ys[0];
  for (let i = 1; i < xs.length; i++) {
    if (value <= xs[i]) return ys[i - 1] + ((value - xs[i - 1]) / (xs[i] - xs[i - 1])) * (ys[i] - ys[i - 1]);
  }
  return ys[ys.length - 1];
}

/** Makes a plane: of zeros, or of what `compute` returns for each place. @returns {Plane} */
export function plane(width, height, compute) {
  const data = new Float32Array(width * height);
  if (compute) for (let i = 0; i < data.length; i++) data[i] = compute(i);
  return { width, height, data };
}

/** A photo or a plane turned by a quarter, anticlockwise. */
export function turn({ width, height, data }) {
  const channels = data.length / (width * height), turned = new data.constructor(data.length);
  for (let y = 0; y < width; y++) {
    for (let x = 0; x < height; x++) {
      const from = (x * width + width - 1 - y) * channels, to = (y * height + x) * channels;
      for (let c = 0; c < channels; c++) turned[to + c] = data[from + c];
    }
  }
  return { width: height, height: width, data: turned };
}

/** The product of two planes. @returns {Plane} */
export function times(a, b) {
  const { width, height } = a, data = new Float32Array(a.data.length), left = a.data, right = b.data;
  for (let i = 0; i < data.length; i++) data[i] = left[i] * right[i]; // several times as fast as `plane`, which calls
  return { width, height, data };
}

/** @param {Photo} photo @returns {Plane[]} red, green and blue, 0 to 255 */
export function split({ width, height, data }) {
  return [0, 1, 2].map((channel) => plane(width, height, (i) => data[4 * i + channel]));
}

/**
 * A part of a photo or a plane.
 * @template {{width: number, height: number, data: any}} T
 * @param {T} picture
 * @param {{left: number, top: number, width: number, height: number}} box
 * @returns {T}
 */
export function crop(picture, { left, top, width, height }) {
  const channels = picture.data.length / (picture.width * picture.height);
  const data = new picture.data.constructor(width * height * channels);
  for (let y = 0; y < height; y++) {
    const start = ((top + y) * picture.width + left) * channels;
    data.set(picture.data.subarray(start, start + width * channels), y * width * channels);
  }
  return { width, height, data };
}

/** Which pixels of a row of `from` each pixel of a row of `to` covers, and how much of them: flat lists. */
function coverage(from, to) {
  const scale = from / to;
  const starts = new Int32Array(to + 1), places = [], shares = [];
  for (let i = 0; i < to; i++) {
    const begin = i * scale, end = Math.min((i + 1) * scale, from);
    for (let j = Math.floor(begin); j < end - 1e-6; j++) {
      const share = Math.min(j + 1, end) - Math.max(j, begin);
      if (share > 1e-6) places.push(j), shares.push(share / (end - begin));
    }
    starts[i + 1] = places.length;
  }
  return { starts, places: Int32Array.from(places), shares: Float32Array.from(shares) };
}

/**
 * Shrinks a picture: each pixel is the mean of those it covers (INTER_AREA). Sums are rounded in OpenCV's order.
 * @template {{width: number, height: number, data: any}} T
 * @param {T} picture with any number of channels; bytes are a Uint8ClampedArray, which rounds as OpenCV does
 * @param {number} width at most that of the picture
 * @param {number} height likewise
 * @returns {T}
 */
export function shrink(picture, width, height) {
  const channels = picture.data.length / (picture.width * picture.height), source = picture.data;
  const across = coverage(picture.width, width), down = coverage(picture.height, height);
  const result = new picture.data.constructor(width * height * channels);
  const row = new Float32Array(width * channels), sum = new Float32Array(width * channels);
  let known = -1; // the row of the picture that `row` holds
  for (let y = 0; y < height; y++) {
    sum.fill(0);
    for (let k = down.starts[y]; k < down.starts[y + 1]; k++) {
      if (known !== down.places[k]) {
        known = down.places[k];
        const start = known * picture.width * channels;
        row.fill(0);
        for (let x = 0; x < width; x++) {
          for (let j = across.starts[x]; j < across.starts[x + 1]; j++) {
            const share = across.shares[j], place = start + across.places[j] * channels;
            for (let c = 0; c < channels; c++) row[x * channels + c] += share * source[place + c];
          }
        }
      }
      for (let i = 0; i < sum.length; i++) sum[i] += down.shares[k] * row[i];
    }
    result.set(sum, y * sum.length);
  }
  return { width, height, data: result };
}

/** For each pixel of a row of `to`: the two nearest of a row of `from`, and the weight of the second. */
export function neighbours(from, to) {
  const first = new Int32Array(to), second = new Int32Array(to), share = new Float32Array(to);
  for (let i = 0; i < to; i++) {
    const exact = clip((i + 0.5) * (from / to) - 0.5, 0, from - 1);
    first[i] = Math.floor(exact);
    second[i] = Math.min(first[i] + 1, from - 1);
    share[i] = exact - first[i];
  }
  return { first, second, share };
}

/**
 * Resizes a picture linearly (INTER_LINEAR).
 * @template {{width: number, height: number, data: any}} T
 * @param {T} picture with any number of channels; bytes are a Uint8ClampedArray
 * @param {number} width
 * @param {number} height
 * @returns {T}
 */
export function enlarge(picture, width, height) {
  const channels = picture.data.length / (picture.width * picture.height), line = picture.width * channels;
  const across = neighbours(picture.width, width), down = neighbours(picture.height, height);
  const result = new picture.data.constructor(width * height * channels);
  const mix = picture.data.BYTES_PER_ELEMENT === 1 ? mixBytes : mixNumbers;
  let target = 0;
  for (let y = 0; y < height; y++) {
    const above = down.first[y] * line, below = down.second[y] * line;
    for (let x = 0; x < width; x++) {
      const left = across.first[x] * channels, right = across.second[x] * channels;
      for (let c = 0; c < channels; c++) {
        const corners = picture.data;
        result[target++] = mix(
          corners[above + left + c], corners[above + right + c], corners[below + left + c], corners[below + right + c],
          across.share[x], down.share[y],
        );
      }
    }
  }
  return { width, height, data: result };
}

function mixNumbers(a, b, c, d, u, v) {
  const above = a + u * (b - a);
  return above + v * (c + u * (d - c) - above);
}

/** In whole numbers, and rounded where OpenCV does so. */
function mixBytes(a, b, c, d, u, v) {
  const right = Math.round(2048 * u), below = Math.round(2048 * v), left = 2048 - right;
  const high = ((2048 - below) * ((a * left + b * right) >> 4)) >> 16, low = (below * ((c * left + d * right) >> 4)) >> 16;
  return (high + low + 2) >> 2;
}

/** The place inside 0 … size - 1 that a mirrored one stands for. */
export function mirrored(place, size) {
  if (size === 1) return 0;
  const period = 2 * size - 2, rest = ((place % period) + period) % period;
  return rest < size ? rest : period - rest;
}

/**
 * Applies a filter to all rows of a plane, then to all columns.
 * @param {Plane} source
 * @param {number} radius of the filter
 * @param {(row: Float32Array, result: Float32Array, start: number, step: number) => void} filter
 *   filters a row, which is longer by `radius` at either end, into every `step`-th place of `result`
 * @returns {Plane}
 */
function separately(source, radius, filter) {
  const pass = ({ width, height, data }) => {
    const result = new Float32Array(data.length), row = new Float32Array(width + 2 * radius);
    for (let y = 0; y < height; y++) {
      row.set(data.subarray(y * width, (y + 1) * width), radius);
      for (let i = 1; i <= radius; i++) {
        row[radius - i] = data[y * width + mirrored(-i, width)];
        row[radius + width - 1 + i] = data[y * width + mirrored(width - 1 + i, width)];
      }
      filter(row, result, y, height);
    }
    return { width: height, height: width, data: result }; // turned
  };
  return pass(pass(source));
}

/** The mean of a square of 2 · radius + 1 pixels around each pixel. @param {Plane} source @returns {Plane} */
export function boxBlur(source, radius) {
  const length = 2 * radius + 1, share = 1 / length;
  return separately(source, radius, (row, result, start, step) => {
    let sum = 0;
    for (let i = 0; i < length; i++) sum += row[i];
    for (let i = 0, place = start; ; i++, place += step) {
      result[place] = sum * share;
      if (i + length >= row.length) break;
      sum += row[i + length] - row[i];
    }
  });
}

const EXACT = 2; // sigma up to which a Gaussian is computed as it is; three boxes are close to it, and faster

/** @param {Plane} source @param {number} sigma @returns {Plane} */
export function gaussianBlur(source, sigma) {
  if (sigma > EXACT) {
    // The widths of three boxes with the variance of the Gaussian (Kovesi 2010, "Fast almost-Gaussian filtering").
    const low = Math.floor((Math.sqrt(4 * sigma * sigma + 1) - 1) / 2);
    const small = 2 * low + 1, count = round((12 * sigma ** 2 - 3 * small ** 2 - 12 * small - 9) / (-4 * small - 4));
    return [0, 1, 2].reduce((blurred, i) => boxBlur(blurred, i < count ? low : low + 1), source);
  }
  const radius = (round(8 * sigma + 1) | 1) >> 1, length = 2 * radius + 1;
  const kernel = Float32Array.from({ length }, (_, i) => Math.exp(-((i - radius) ** 2) / (2 * sigma ** 2)));
  const total = kernel.reduce((sum, value) => sum + value);
  return separately(source, radius, (row, result, start, step) => {
    for (let i = 0; i + length <= row.length; i++) {
      let sum = 0;
      for (let k = 0; k < length; k++) sum += kernel[k] * row[i + k];
      result[start + step * i] = sum / total;
    }
  });
}

/** Whether there is a pixel that is not 0 in a square of 2 · radius + 1 around each pixel. @returns {Plane} of 0 and 1 */
export function dilate(source, radius) {
  const { width, height, data } = boxBlur(source, radius);
  return plane(width, height, (i) => +(data[i] > 0.5 / (2 * radius + 1) ** 2));
}

/** Chamfer steps to the pixels that were visited before: across, down, length (DIST_L2 with a mask of 5 × 5). */
const STEPS = [[-1, 0, 1], [0, -1, 1], [-1, -1, 1.4], [1, -1, 1.4], [-2, -1, 2.1969], [2, -1, 2.1969], [-1, -2, 2.1969], [1, -2, 2.1969]];

/**
 * The distance of each pixel from the nearest one for which `isInside` is false.
 * @returns {Float32Array}
 */
export function distances(width, height, isInside) {
  const wide = width + 4; // two pixels of border, from which nothing is near
  const far = new Float32Array(wide * (height + 4)).fill(Infinity);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) if (!isInside(y * width + x)) far[(y + 2) * wide + x + 2] = 0;
  }
  const offsets = STEPS.map(([dx, dy]) => dy * wide + dx), lengths = STEPS.map(([, , length]) => length);
  for (const sign of [1, -1]) {
    for (let n = 2 * wide; n < far.length - 2 * wide; n++) {
      const i = sign > 0 ? n : far.length - 1 - n, column = i % wide;
      if (column < 2 || column >= width + 2) continue;
      let nearest = far[i];
      for (let k = 0; nearest > 0 && k < offsets.length; k++) nearest = Math.min(nearest, far[i + sign * offsets[k]] + lengths[k]);
      far[i] = nearest;
    }
  }
  return crop({ width: wide, height: height + 4, data: far }, { left: 2, top: 2, width, height }).data;
}
