/** Scales a photo to the network's square input, and probabilities back: hair/geometry.py. */

import { clip, crop, enlarge, round, shrink } from "./planes.js";

/** The position of a photo in the middle of a square of `size`, after it is scaled to fit. */
export function letterbox(width, height, size) {
  const scale = size / Math.max(width, height);
  const box = { width: Math.max(1, round(width * scale)), height: Math.max(1, round(height * scale)) };
  return { ...box, left: (size - box.width) >> 1, top: (size - box.height) >> 1 };
}

/**
 * Turns a photo into the network's input.
 * @param {import("./planes.js").Photo} photo
 * @param {number} size side of the square
 * @param {number[]} mean of red, green and blue, 0 to 1
 * @param {number[]} std likewise
 * @returns {Float32Array} (3, size, size)
 */
export function preprocess(photo, size, mean, std) {
  const box = letterbox(photo.width, photo.height, size);
  const resize = Math.max(photo.width, photo.height) > size ? shrink : enlarge;
  const { data } = resize(photo, box.width, box.height);
  const input = new Float32Array(3 * size * size);
  for (let channel = 0; channel < 3; channel++) {
    const scale = 1 / (255 * std[channel]), offset = mean[channel] / std[channel];
    input.fill(-offset, channel * size * size, (channel + 1) * size * size);
    for (let y = 0; y < box.height; y++) {
      const target = (channel * size + box.top + y) * size + box.left, source = 4 * y * box.width + channel;
      for (let x = 0; x < box.width; x++) input[target + x] = data[source + 4 * x] * scale - offset;
    }
  }
  return input;
}

/**
 * Undoes `preprocess`: brings probabilities back to the size of a photo.
 * @param {import("./planes.js").Plane} square
 * @returns {import("./planes.js").Plane} in [0, 1]
 */
export function restore(square, width, height) {
  const full = enlarge(crop(square, letterbox(width, height, square.width)), width, height);
  for (let i = 0; i < full.data.length; i++) full.data[i] = clip(full.data[i], 0, 1);
  return full;
}
