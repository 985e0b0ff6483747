/** Where to look at a photo again, closer, and how several looks become one result: hair/looks.py. */

import { clip, crop, dilate, plane, shrink, turn } from "./planes.js";
import tables from "./tables.json" with { type: "json" };

const numbers = tables.looks;

/**
 * Improves the probabilities of a photo by closer looks where they are needed; a portrait gets none, or turned ones where it is doubtful.
 * @param {import("./planes.js").Photo} photo
 * @param {import("./planes.js").Plane} first the first look, in the photo's proportions at the network's size
 * @param {import("./planes.js").Plane} probabilities the first look at the photo's size; changed in place
 * @param {(part: import("./planes.js").Photo, factor: number) => Promise<import("./planes.js").Plane>} look
 *   runs the network on a part of the photo, at its own size times a factor
 */
export async function lookCloser(photo, first, probabilities, look) {
  const longer = Math.max(photo.width, photo.height);
  let heads = findHeads(first, longer);
  const largest = heads.reduce((most, head) => Math.max(most, side(head)), 0) / longer;
  const { FEW, CROWD, PORTRAIT, PORTRAIT_OF_MANY, SUSPECTED, ENLARGED } = numbers;
  if (largest >= PORTRAIT && doubt(first) > numbers.DOUBTFUL) await lookTurned(photo, first, probabilities, look);
  const mayBeCrowd = heads.length >= FEW && largest < (heads.length < CROWD ? PORTRAIT : PORTRAIT_OF_MANY);
  if (mayBeCrowd || (!heads.length && first.data.some((value) => value >= SUSPECTED))) {
    const larger = await look(photo, ENLARGED);
    if (!heads.length) {
      probabilities.data.forEach((value, i, data) => (data[i] = (value + larger.data[i]) / 2));
      heads = findHeads(shrink(larger, first.width, first.height), longer);
    } else {
      const both = plane(photo.width, photo.height, (i) => (probabilities.data[i] + larger.data[i]) / 2);
      const crowd = findHeads(shrink(both, first.width, first.height), longer);
      if (crowd.length >= CROWD) return lookAtTiles(photo, crowd, probabilities, look);
    }
  }
  for (const window of windows(heads, photo)) await lookAtWindow(photo, window, probabilities, look);
}

/** How doubtful the hair of a look is: 0 where all probabilities are 0 or 1, 1 where all are almost 0. */
function doubt({ data }) {
  let doubtful = 0, sum = 1;
  for (const value of data) (doubtful += value * (1 - value)), (sum += value);
  return doubtful / sum;
}

/** Replaces the probabilities by those of the photo turned by a quarter, a half or three, where these are clearer. */
async function lookTurned(photo, first, probabilities, look) {
  const isLarger = photo.width > first.width || photo.height > first.height;
  const small = isLarger ? shrink(photo, first.width, first.height) : photo;
  let least = numbers.CLEARER * doubt(first), clearest = 0;
  for (let quarters = 1, turned = small; quarters < 4; quarters++) {
    turned = turn(turned);
    const found = doubt(await look(turned, 1));
    if (found <= least) (least = found), (clearest = quarters);
  }
  if (!clearest) return;
  let upright = photo;
  for (let i = 0; i < clearest; i++) upright = turn(upright);
  let found = await look(upright, 1);
  for (let i = clearest; i < 4; i++) found = turn(found);
  probabilities.data.set(found.data);
}

/** Boxes around the connected pieces of hair of which a pixel is sure, in pixels of the photo, the largest first. */
function findHeads({ width, height, data }, longer) {
  const scale = longer / Math.max(width, height), seen = new Uint8Array(data.length), heads = [];
  for (let start = 0; start < data.length; start++) {
    if (seen[start] || data[start] < numbers.SUSPECTED) continue;
    const head = { area: 0, left: width, top: height, right: 0, bottom: 0 }, open = [start];
    let surest = 0;
    seen[start] = 1;
    while (open.length) {
      const i = open.pop(), x = i % width, y = (i - x) / width;
      head.area++;
      surest = Math.max(surest, data[i]);
      head.left = Math.min(head.left, x), head.right = Math.max(head.right, x + 1);
      head.top = Math.min(head.top, y), head.bottom = Math.max(head.bottom, y + 1);
      for (let row = Math.max(0, y - 1); row <= Math.min(height - 1, y + 1); row++) {
        for (let column = Math.max(0, x - 1); column <= Math.min(width - 1, x + 1); column++) {
          const next = row * width + column;
          if (!seen[next] && data[next] >= numbers.SUSPECTED) (seen[next] = 1), open.push(next);
        }
      }
    }
    if (head.area >= numbers.SMALLEST_HAIR && surest >= numbers.SURE) heads.push(head);
  }
  heads.sort((a, b) => b.area - a.area);
  return heads.map(({ left, top, right, bottom }) => ({
    left: left * scale, top: top * scale, right: right * scale, bottom: bottom * scale,
  }));
}

/** The side of a square as large as a box. */
const side = (head) => Math.sqrt((head.right - head.left) * (head.bottom - head.top));
const middle = (head) => [(head.left + head.right) / 2, (head.top + head.bottom) / 2];
const longest = (head) => Math.max(head.right - head.left, head.bottom - head.top);

/** Squares around those heads that are too small for a whole look, and not a part of a larger one. */
function windows(heads, photo) {
  const longer = Math.max(photo.width, photo.height), largest = numbers.LARGEST_WINDOW * longer;
  const portraits = heads.filter((head) => side(head) >= numbers.PORTRAIT * longer);
  const found = [];
  for (const head of heads) {
    const [x, y] = middle(head), length = longest(head);
    const belongs = portraits.some((portrait) => {
      const [a, b] = middle(portrait), reach = (numbers.CLOSE / 2) * longest(portrait);
      return Math.abs(x - a) <= reach && Math.abs(y - b) <= reach;
    });
    if (numbers.CLOSEST * length > largest || belongs) continue;
    const reach = Math.min(numbers.CLOSE * length, largest) / 2;
    const left = Math.max(0, Math.floor(x - reach)), top = Math.max(0, Math.floor(y - reach));
    const width = Math.min(photo.width, Math.ceil(x + reach)) - left;
    const height = Math.min(photo.height, Math.ceil(y + reach)) - top;
    found.push({ left, top, width, height, isLargest: numbers.CLOSE * length > largest });
  }
  return found.slice(0, numbers.MOST_LOOKS);
}

/** Improves the probabilities of a window, in place. */
async function lookAtWindow(photo, window, probabilities, look) {
  const found = (await look(crop(photo, window), 1)).data, known = crop(probabilities, window);
  const sum = (data) => data.reduce((total, value) => total + value, 0);
  const bothMustAgree = window.isLargest && sum(found) > numbers.GROWTH * sum(known.data);
  const reach = Math.floor(Math.max(window.width, window.height) / 16);
  const isBeside = plane(window.width, window.height, (i) => +(known.data[i] >= numbers.BESIDE));
  const beside = bothMustAgree ? null : dilate(isBeside, reach).data;
  known.data.forEach((value, i) => {
    const better = beside?.[i] ? numbers.SHARE * found[i] + (1 - numbers.SHARE) * value : Math.min(value, found[i]);
    const x = i % window.width, y = (i - x) / window.width;
    probabilities.data[(window.top + y) * photo.width + window.left + x] = better;
  });
}

/** Where tiles begin along a photo's side of `length`. */
function tileStarts(length, size) {
  const count = 1 + Math.max(0, Math.ceil((length - size) / Math.max(1, size * (1 - numbers.OVERLAP))));
  const room = Math.max(0, length - size);
  return Array.from({ length: count }, (_, k) => (count > 1 ? Math.floor((k * room) / (count - 1)) : 0));
}

/** Replaces the probabilities by those of tiles, in place; where tiles overlap, their middles count most. */
async function lookAtTiles(photo, heads, probabilities, look) {
  const sides = heads.map(side).sort((a, b) => a - b), half = sides.length >> 1;
  let size = numbers.TILE * (sides.length % 2 ? sides[half] : (sides[half - 1] + sides[half]) / 2);
  let lefts, tops;
  for (size = Math.max(1, size); ; size *= 1.05) {
    [lefts, tops] = [photo.width, photo.height].map((length) => tileStarts(length, Math.floor(size)));
    if (lefts.length * tops.length <= numbers.MOST_LOOKS) break;
  }
  const total = new Float32Array(probabilities.data.length), weights = new Float32Array(total.length);
  for (const top of tops) {
    for (const left of lefts) {
      const width = Math.min(Math.floor(size), photo.width - left), height = Math.min(Math.floor(size), photo.height - top);
      const found = await look(crop(photo, { left, top, width, height }), 1);
      for (let y = 0; y < height; y++) {
        for (let x = 0; x < width; x++) {
          const weight = Math.min(y + 1, height - y) * Math.min(x + 1, width - x), i = (top + y) * photo.width + left + x;
          total[i] += found.data[y * width + x] * weight;
          weights[i] += weight;
        }
      }
    }
  }
  total.forEach((value, i) => (probabilities.data[i] = clip(value / weights[i], 0, 1)));
}
