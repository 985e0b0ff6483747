// Runs functions of web/ondevice/src for test_ondevice.py, without a browser.
// Standard input: JSON {call, width, height, arguments}. Files photo.rgba (bytes) and plane.f32 in the working folder.
// Result: out.bin, the data of what the function returns.
import { readFileSync, writeFileSync } from "node:fs";
import { cutOut } from "../../web/ondevice/src/cutout.js";
import { measureHair, recolor } from "../../web/ondevice/src/dye.js";
import { preprocess, restore } from "../../web/ondevice/src/geometry.js";
import { lookCloser } from "../../web/ondevice/src/looks.js";
import { shrink } from "../../web/ondevice/src/planes.js";

const { call, width, height, settings } = JSON.parse(readFileSync(0, "utf8"));
const photo = { width, height, data: new Uint8ClampedArray(readFileSync("photo.rgba")) };
const floats = (name) => new Float32Array(new Uint8Array(readFileSync(name)).buffer);
const square = (data) => ({ width: Math.sqrt(data.length), height: Math.sqrt(data.length), data });
const probabilities = () => ({ width, height, data: floats("plane.f32") });
const calls = {
  preprocess: () => preprocess(photo, settings.size, settings.mean, settings.std),
  restore: () => restore(square(floats("plane.f32")), width, height).data,
  shrink: () => shrink(photo, settings.width, settings.height).data,
  recolor: () => {
    const hair = measureHair(photo, probabilities(), settings.threshold);
    return Buffer.concat(settings.dyes.map((dye) => Buffer.from(recolor(hair, dye).data.buffer)));
  },
  cutOut: () => cutOut(photo, probabilities(), settings.threshold).data,
  // The "network" of this one calls hair what is dark, as the test's does.
  lookCloser: async () => {
    const dark = (part) => Float32Array.from({ length: part.width * part.height }, (_, i) => (part.data[4 * i] < 100 ? 0.9 : 0.05));
    const found = { width, height, data: dark(photo) };
    const first = shrink(found, settings.width, settings.height);
    await lookCloser(photo, first, found, (part) => ({ width: part.width, height: part.height, data: dark(part) }));
    return found.data;
  },
};
const result = await calls[call]();
writeFileSync("out.bin", Buffer.from(result.buffer, result.byteOffset, result.byteLength));
