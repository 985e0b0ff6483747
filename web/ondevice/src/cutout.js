/** Cuts the hair out, without the colours of its background: hair/cutout.py. */

import { clip, crop, mirrored, neighbours, plane, round, shrink, split } from "./planes.js";
import { hairOpacity } from "./opacity.js";
import tables from "./tables.json" with { type: "json" };

const { REDUCED_PIXELS, PURITY, ENOUGH, LEAST_VARIANCE, DOUBT } = tables.cutout;

/**
 * @param {import("./planes.js").Photo} photo
 * @param {import("./planes.js").Plane} probabilities of the same size
 * @param {number} threshold probability at which the hair is half transparent
 * @returns {import("./planes.js").Photo} transparent where there is no hair
 */
export function cutOut(photo, probabilities, threshold) {
  const { width, height } = photo, opacity = hairOpacity(photo, probabilities, threshold);
  const step = Math.max(1, round(Math.sqrt((width * height) / REDUCED_PIXELS)));
  const stepX = Math.min(step, width), stepY = Math.min(step, height);
  const w = Math.floor(width / stepX), h = Math.floor(height / stepY);
  const whole = { left: 0, top: 0, width: w * stepX, height: h * stepY };
  const colors = split(shrink(crop(photo, whole), w, h));
  const cover = shrink(crop({ width, height, data: opacity }, whole), w, h);
  const hair = spread(colors, plane(w, h, (i) => (cover.data[i] / 255) ** PURITY));
  const behind = spread(colors, plane(w, h, (i) => (1 - cover.data[i] / 255) ** PURITY));
  const across = neighbours(w, whole.width), down = neighbours(h, whole.height);
  const cut = new Uint8ClampedArray(photo.data.length);
  for (let i = 0, y = 0; y < height; y++) {
    const cell = Math.min(Math.floor(y / stepY), h - 1) * w, row = Math.min(y, whole.height - 1);
    const above = down.first[row] * w, below = down.second[row] * w, v = down.share[row];
    for (let x = 0; x < width; x++, i++) {
      const alpha = opacity[i];
      cut[4 * i + 3] = alpha;
      if (alpha === 255) {
        for (let c = 0; c < 3; c++) cut[4 * i + c] = photo.data[4 * i + c];
      } else if (!alpha) {
        // Flat squares of the nearest hair's colour compress well.
        for (let c = 0; c < 3; c++) cut[4 * i + c] = hair[c][cell + Math.min(Math.floor(x / stepX), w - 1)];
      } else {
        const column = Math.min(x, whole.width - 1), left = across.first[column], right = across.second[column];
        const u = across.share[column];
        const nearby = (data) => (1 - v) * ((1 - u) * data[above + left] + u * data[above + right]) +
          v * ((1 - u) * data[below + left] + u * data[below + right]);
        unmix(cut, photo.data, i, alpha / 255, hair.map(nearby), behind.map(nearby));
      }
    }
  }
  return { width, height, data: cut };
}

/** Writes the most likely colour of the hair in a mixed pixel; `hair` and `behind`: three colours and a variance. */
function unmix(cut, pixels, i, share, hair, behind) {
  const rest = 1 - share;
  let contrast = 0;
  for (let c = 0; c < 3; c++) contrast += (hair[c] - behind[c]) ** 2;
  const doubt = (DOUBT / 3) * share * rest * contrast;
  const gain = (share * hair[3]) / (share * share * hair[3] + rest * rest * behind[3] + doubt);
  for (let c = 0; c < 3; c++) {
    cut[4 * i + c] = clip(hair[c] + gain * (pixels[4 * i + c] - behind[c] - share * (hair[c] - behind[c])), 0, 255);
  }
}

/** Weighted mean colours, each over the smallest neighbourhood with enough weight, and their variance. */
function spread(colors, weight) {
  const { width, height } = weight, most = Math.max(weight.data.reduce((a, b) => Math.max(a, b)), 1e-30);
  const share = plane(width, height, (i) => weight.data[i] / most);
  const square = plane(width, height, (i) => colors.reduce((sum, { data }) => sum + data[i] ** 2 / 3, 0));
  const levels = [[...colors, square].map(({ data }) => plane(width, height, (i) => data[i] * share.data[i])).concat(share)];
  while (Math.max(levels.at(-1)[0].width, levels.at(-1)[0].height) > 1) levels.push(levels.at(-1).map(pyramidDown));
  const top = levels.pop();
  let mean = top.slice(0, 4).map(({ width, height, data }) => plane(width, height, (i) => data[i] / Math.max(top[4].data[i], 1e-12)));
  for (const layers of levels.reverse()) {
    const amount = layers[4];
    mean = mean.map((layer, k) => {
      const larger = pyramidUp(layer, amount.width, amount.height).data;
      return plane(amount.width, amount.height, (i) => (layers[k].data[i] + ENOUGH * larger[i]) / (amount.data[i] + ENOUGH));
    });
  }
  const planes = mean.map(({ data }) => data);
  planes[3] = planes[3].map((value, i) =>
    Math.max(value - (planes[0][i] ** 2 + planes[1][i] ** 2 + planes[2][i] ** 2) / 3, LEAST_VARIANCE));
  return planes;
}

/** Halves a plane along x and turns it, so that twice does both (as cv2.pyrDown). */
function half({ width, height, data }) {
  const w = (width + 1) >> 1;
  const result = plane(height, w);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < w; x++) {
      const at = (offset) => data[y * width + mirrored(2 * x + offset, width)];
      result.data[x * height + y] = (at(-2) + at(2) + 4 * (at(-1) + at(1)) + 6 * at(0)) / 16;
    }
  }
  return result;
}

const pyramidDown = (layer) => half(half(layer));

/** Doubles a plane along x, to `size`, and turns it (as cv2.pyrUp). */
function double({ width, height, data }, size) {
  const result = plane(height, size);
  for (let y = 0; y < height; y++) {
    const at = (x) => data[y * width + (x < 0 ? Math.min(1, width - 1) : Math.min(x, width - 1))];
    for (let x = 0; x < size; x++) {
      const k = x >> 1;
      result.data[x * height + y] = x & 1 ? (at(k) + at(k + 1)) / 2 : (at(k - 1) + 6 * at(k) + at(k + 1)) / 8;
    }
  }
  return result;
}

const pyramidUp = (layer, width, height) => double(double(layer, width), height);
