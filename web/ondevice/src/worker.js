/** Runs the network and draws results, so that the page stays responsive. It answers calls of `page.js` in turn. */

import { cutOut } from "./cutout.js";
import { measureHair, recolor } from "./dye.js";
import { letterbox, preprocess, restore } from "./geometry.js";
import { lookCloser } from "./looks.js";
import { crop, plane, round, shrink } from "./planes.js";

// From build.mjs: names and sizes of files, and what config.json says of the network.
/* global ENGINES, MODEL */

const PREVIEW_SIDE = 1000; // longer side of the pictures in the page, pixels
const PREVIEW_REDUCED = 256; // longer side of the hair on which their colours are measured, pixels
const LIVE_SIDE = 360; // longer side of the camera's frames that are dyed, pixels
const LIVE_SIZE = 224; // longer side of the network's input for them, pixels
const LIVE_REDUCED = 96; // longer side of the hair on which their colours are measured, pixels
const LIVE_SMOOTH = 0.5; // weight of the frame before, against flicker
const QUALITY = 0.95; // of JPEG

/** The open photo, with `small` and `hair` (see `measureHair`) for the preview. */
let open = null;
let network = null;
let before = null; // probabilities of the last frame of the camera

// -------------------------------------------------------------------------------------------------- the network

/** Downloads a file that build.mjs compressed. @param {(bytes: number) => void} count is told of each part */
async function fetchFile({ name }, count) {
  const response = await fetch(name);
  if (!response.ok) throw new Error(`${name}: ${response.status}`);
  const counter = new TransformStream({
    transform(part, stream) {
      count(part.length);
      stream.enqueue(part);
    },
  });
  const unpacked = response.body.pipeThrough(counter).pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(unpacked).arrayBuffer());
}

/** ONNX Runtime's build with WebGPU needs a GPU that is not imitated by the CPU, and WebAssembly that can wait for it. */
async function hasGpu() {
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  return "Suspending" in WebAssembly && !!adapter && !adapter.info?.isFallbackAdapter;
}

/**
 * Loads ONNX Runtime and the network.
 * @param {string} [engine] `wasm` or `webgpu`; by default what this browser can do best
 * @returns {Promise<{engine: string, threads: number}>}
 */
async function load(engine) {
  engine ??= (await hasGpu()) ? "webgpu" : "wasm";
  const files = ENGINES[engine];
  const total = files.binary.bytes + MODEL.bytes;
  let loaded = 0;
  const count = (bytes) => postMessage({ progress: (loaded += bytes) / total });
  const parts = [import(files.module), fetchFile(files.binary, count), fetchFile(MODEL, count)];
  const [ort, binary, model] = await Promise.all(parts);
  const threads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;
  Object.assign(ort.env.wasm, { wasmBinary: binary, numThreads: threads });
  try {
    const session = await ort.InferenceSession.create(model, { executionProviders: [engine] });
    network = async (input, width, height) => {
      const found = await session.run({ [session.inputNames[0]]: new ort.Tensor("float32", input, [1, 3, height, width]) });
      return found[session.outputNames[0]].data;
    };
    await network(new Float32Array(3 * MODEL.size ** 2), MODEL.size, MODEL.size); // the first run is slow: it compiles
  } catch (error) {
    if (engine === "wasm") throw error;
    return load("wasm");
  }
  return { engine, threads };
}

/** One look at a photo. @returns {Promise<import("./planes.js").Plane>} probabilities in a square of `size` */
async function look(photo, size) {
  const logits = await network(preprocess(photo, size, MODEL.mean, MODEL.std), size, size);
  return plane(size, size, (i) => 1 / (1 + Math.exp(-logits[i])));
}

/** The same without most of the black borders: faster, and not quite the same. */
async function lookQuickly(photo, size) {
  const input = preprocess(photo, size, MODEL.mean, MODEL.std), { width, height } = letterbox(photo.width, photo.height, size);
  const box = { width: 32 * Math.ceil(width / 32), height: 32 * Math.ceil(height / 32) }; // as the network needs it
  Object.assign(box, { left: (size - box.width) / 2, top: (size - box.height) / 2 });
  const area = box.width * box.height, cropped = new Float32Array(3 * area);
  for (let c = 0; c < 3; c++) {
    const channel = { width: size, height: size, data: input.subarray(c * size * size, (c + 1) * size * size) };
    cropped.set(crop(channel, box).data, c * area);
  }
  const logits = await network(cropped, box.width, box.height), square = plane(size, size);
  for (let i = 0; i < area; i++) {
    const x = box.left + (i % box.width), y = box.top + Math.floor(i / box.width);
    square.data[y * size + x] = 1 / (1 + Math.exp(-logits[i]));
  }
  return square;
}

/** @returns {Promise<import("./planes.js").Plane>} probabilities of hair, at the photo's size */
async function segment(photo) {
  const { width, height } = photo, square = await look(photo, MODEL.size);
  const full = restore(square, width, height);
  await lookCloser(photo, crop(square, letterbox(width, height, MODEL.size)), full, async (part, factor) =>
    restore(await look(part, round((MODEL.size * factor) / 32) * 32), part.width, part.height));
  return full;
}

// -------------------------------------------------------------------------------------------------- pictures

/** The pixels of an image, on white; smaller where this browser has no canvas of its size. */
function toPhoto(image, scale = 1) {
  const width = Math.max(1, Math.round(image.width * scale)), height = Math.max(1, Math.round(image.height * scale));
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  if (context) {
    context.fillStyle = "white";
    context.fillRect(0, 0, width, height);
    context.drawImage(image, 0, 0, width, height);
    const { data } = context.getImageData(0, 0, width, height);
    if (data[3] === 255) return { width, height, data }; // a canvas that is too large stays transparent
  }
  if (width * height < 1e6) throw new Error("no canvas");
  return toPhoto(image, scale * Math.SQRT1_2);
}

async function toFile({ width, height, data }, type) {
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d").putImageData(new ImageData(data, width, height), 0, 0);
  return canvas.convertToBlob({ type, quality: QUALITY });
}

// -------------------------------------------------------------------------------------------------- calls

const calls = {
  load,

  /** Opens a photo: a file, or a frame. Answers with its preview, its size, how much and where (along x) hair is. */
  async open(source) {
    const image = source instanceof Blob ? await createImageBitmap(source) : source;
    const photo = toPhoto(image);
    const isReduced = photo.width < image.width;
    image.close();
    const probabilities = await segment(photo);
    const { width, height } = photo, scale = Math.min(1, PREVIEW_SIDE / Math.max(width, height));
    const size = [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
    const small = scale < 1 ? shrink(photo, ...size) : photo;
    const smallProbabilities = scale < 1 ? shrink(probabilities, ...size) : probabilities;
    open = { photo, probabilities, small, smallProbabilities };
    const { share, middle } = describe(smallProbabilities);
    return { preview: { ...small, data: small.data.slice() }, width, height, share, middle, isReduced };
  },

  /** The preview of `kind`: `recolor`, with a dye, or `alpha`, the cut-out. */
  draw(kind, dye) {
    const { small, smallProbabilities } = open;
    const measure = () => (open.hair ??= measureHair(small, smallProbabilities, MODEL.threshold, PREVIEW_REDUCED));
    return draw(kind, dye, small, smallProbabilities, measure);
  },

  /** The file of `kind`, at the photo's size: `recolor`, `alpha` or `mask`. */
  save(kind, dye, type) {
    const { photo, probabilities } = open;
    return toFile(draw(kind, dye, photo, probabilities, () => measureHair(photo, probabilities, MODEL.threshold)), type);
  },

  /** The dyed hair of a frame of the camera, small, and transparent where nothing changes. */
  async frame(image, dye) {
    const photo = toPhoto(image, Math.min(1, LIVE_SIDE / Math.max(image.width, image.height)));
    image.close();
    const found = restore(await lookQuickly(photo, LIVE_SIZE), photo.width, photo.height);
    if (before?.length === found.data.length) {
      found.data.forEach((value, i, data) => (data[i] = value + LIVE_SMOOTH * (before[i] - value)));
    }
    before = found.data;
    const hair = measureHair(photo, found, MODEL.threshold, LIVE_REDUCED);
    const dyed = hair ? recolor(hair, dye) : photo;
    for (let i = 3; i < dyed.data.length; i += 4) dyed.data[i] = 0;
    hair?.cover.forEach((amount, i) => {
      const x = hair.box.left + (i % hair.box.width), y = hair.box.top + Math.floor(i / hair.box.width);
      if (amount) dyed.data[4 * (y * photo.width + x) + 3] = 255;
    });
    return dyed;
  },
};

/** How much of the picture is hair, and where its middle is along x, both as a fraction. */
function describe({ width, data }) {
  let count = 0, left = width, right = 0;
  for (let i = 0; i < data.length; i++) {
    if (data[i] < MODEL.threshold) continue;
    count++;
    left = Math.min(left, i % width);
    right = Math.max(right, i % width);
  }
  return { share: count / data.length, middle: count ? (left + right + 1) / 2 / width : 0.5 };
}

function draw(kind, dye, photo, probabilities, measure) {
  if (kind === "alpha") return cutOut(photo, probabilities, MODEL.threshold);
  if (kind === "recolor") {
    const hair = measure();
    return hair ? recolor(hair, dye) : { ...photo, data: photo.data.slice() };
  }
  const data = new Uint8ClampedArray(photo.data.length);
  probabilities.data.forEach((value, i) => data.fill(value >= MODEL.threshold ? 255 : 0, 4 * i, 4 * i + 3));
  for (let i = 3; i < data.length; i += 4) data[i] = 255;
  return { width: photo.width, height: photo.height, data };
}

let turn = Promise.resolve();
self.onmessage = ({ data: { id, name, values } }) => {
  turn = turn.then(async () => {
    try {
      const result = await calls[name](...values);
      const pixels = (result?.preview ?? result)?.data; // moved, not copied
      postMessage({ id, result }, pixels ? [pixels.buffer] : []);
    } catch (error) {
      postMessage({ id, error: String(error) });
    }
  });
};
