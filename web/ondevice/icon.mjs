/** Draws the icon of the page: a face between two curtains of hair. */

import { crc32, deflateSync } from "node:zlib";

const GROUND = [250, 247, 244], FACE = [240, 205, 176], DARK = [122, 58, 28], LIGHT = [205, 122, 72];
const SAMPLES = 4; // a side of each pixel, against jagged edges

/** The colour at x and y, both from -1 to 1. The middle 80% hold all that matters, as a maskable icon needs. */
function colorAt(x, y) {
  const isFace = (x / 0.3) ** 2 + ((y - 0.02) / 0.4) ** 2 < 1;
  const parting = y > -0.3 + 1.5 * Math.abs(x) ** 1.6 - 0.06 && Math.abs(x) < 0.3;
  const top = (x / 0.52) ** 2 + ((y + 0.12) / 0.5) ** 2 < 1 && y < 0.05;
  const width = 0.52 + 0.06 * Math.sin(3 * y);
  const curtain = Math.abs(x) < width && y >= 0.05 && y < 0.62 - 0.25 * Math.abs(Math.abs(x) - 0.4);
  if (isFace && parting) return FACE;
  if (!top && !curtain) return GROUND;
  if (curtain && y > 0.35 && Math.abs(x) < 0.16) return GROUND;
  const strand = 0.5 + 0.5 * Math.sin(26 * Math.abs(x) * (1.1 - 0.25 * y) + 2 * y);
  const shine = strand * Math.exp(-(((y + 0.2) / 0.45) ** 2));
  return DARK.map((value, channel) => value + (0.25 * strand + 0.6 * shine) * (LIGHT[channel] - value));
}

/** @param {number} side pixels @returns {Buffer} a PNG file */
export function drawIcon(side) {
  const rows = Buffer.alloc(side * (3 * side + 1));
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      const sum = [0, 0, 0];
      for (let n = 0; n < SAMPLES ** 2; n++) {
        const place = (value, part) => (2 * (value + (part + 0.5) / SAMPLES)) / side - 1;
        colorAt(place(x, n % SAMPLES), place(y, Math.floor(n / SAMPLES))).forEach((value, c) => (sum[c] += value));
      }
      sum.forEach((value, c) => (rows[y * (3 * side + 1) + 1 + 3 * x + c] = value / SAMPLES ** 2));
    }
  }
  const header = Buffer.alloc(13);
  header.writeUInt32BE(side, 0);
  header.writeUInt32BE(side, 4);
  header.set([8, 2], 8); // bits a channel, RGB
  const chunks = [["IHDR", header], ["IDAT", deflateSync(rows, { level: 9 })], ["IEND", Buffer.alloc(0)]];
  const parts = chunks.map(([type, content]) => {
    const chunk = Buffer.alloc(content.length + 12);
    chunk.writeUInt32BE(content.length, 0);
    chunk.write(type, 4, "latin1");
    chunk.set(content, 8);
    chunk.writeUInt32BE(crc32(chunk.subarray(4, -4)), content.length + 8);
    return chunk;
  });
  return Buffer.concat([Buffer.from("\x89PNG\r\n\x1a\n", "latin1"), ...parts]);
}
