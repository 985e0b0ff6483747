/** Builds the page: `npm run build` writes dist/, which any static host serves. */

import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import * as esbuild from "esbuild";
import { drawIcon } from "./icon.mjs";

const WEIGHTS = "../../weights/timm-tf_efficientnet_lite0_Unet_wild"; // a run folder with this file and config.json:
const NETWORK = "model.onnx";
const ORT = "node_modules/onnxruntime-web/dist";
const DIST = "dist";

// The page needs nothing from elsewhere, and `wasm-unsafe-eval` for WebAssembly. The last two are what threads need.
const POLICY =
  "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; img-src 'self' blob: data:; worker-src 'self' blob:; object-src 'none'; base-uri 'none'";
const HEADERS = {
  "Content-Security-Policy": POLICY,
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
};

const write = (name, content) => writeFileSync(`${DIST}/${name}`, content);

/**
 * Compresses a file, as not every host does that, and names it by its content, so that it can be kept for ever.
 * The ending is not .gz: some servers would have the browser unpack it.
 */
function pack(path, stem) {
  const content = readFileSync(path), name = `${stem}-${createHash("sha256").update(content).digest("hex").slice(0, 12)}.bin`;
  const packed = gzipSync(content, { level: 9 });
  write(name, packed);
  return { name, bytes: packed.length };
}

/** One of ONNX Runtime's builds. Its module stays a file of its own: its threads load it again. */
function addEngine(name, module, binary) {
  copyFileSync(`${ORT}/${module}`, `${DIST}/ort-${name}.mjs`);
  return { module: `./ort-${name}.mjs`, binary: pack(`${ORT}/${binary}`, `ort-${name}`) };
}

rmSync(DIST, { recursive: true, force: true });
mkdirSync(DIST);
const { img_size: size, mean, std, threshold } = JSON.parse(readFileSync(`${WEIGHTS}/config.json`))._hair;
const model = { ...pack(`${WEIGHTS}/${NETWORK}`, "model"), size, mean, std, threshold };
const engines = {
  wasm: addEngine("wasm", "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"),
  webgpu: addEngine("webgpu", "ort.jspi.bundle.min.mjs", "ort-wasm-simd-threaded.jspi.wasm"),
};

const bundle = (name, define = {}) =>
  esbuild.build({
    entryPoints: [`src/${name}.js`],
    outfile: `${DIST}/${name}.js`,
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    external: ["./ort-*.mjs"],
    define: Object.fromEntries(Object.entries(define).map(([key, value]) => [key, JSON.stringify(value)])),
  });
await bundle("page");
await bundle("worker", { ENGINES: engines, MODEL: model });
write("index.html", readFileSync("index.html", "utf8").replace("{{policy}}", POLICY));
for (const name of ["style.css", "manifest.webmanifest"]) copyFileSync(name, `${DIST}/${name}`);
for (const number of [1, 2, 3]) copyFileSync(`../../demo/${number}.jpg`, `${DIST}/example-${number}.jpg`);
for (const side of [192, 512]) write(`icon-${side}.png`, drawIcon(side));

// What the service worker keeps from the start: all but the large files, of which a browser needs one engine only.
const large = readdirSync(DIST).filter((name) => name.endsWith(".bin") || name.endsWith(".mjs"));
const shell = readdirSync(DIST).filter((name) => !large.includes(name));
const version = createHash("sha256");
for (const name of shell) version.update(readFileSync(`${DIST}/${name}`));
await bundle("service-worker", {
  VERSION: version.digest("hex").slice(0, 12),
  SHELL: ["./", ...shell],
  LARGE: large,
  HEADERS,
});
const lines = Object.entries(HEADERS).map(([name, value]) => `  ${name}: ${value}\n`);
write("_headers", `/*\n${lines.join("")}`); // read by Netlify, Cloudflare Pages and `app.py --static`
for (const name of readdirSync(DIST)) console.log(`${statSync(`${DIST}/${name}`).size.toString().padStart(9)}  ${name}`);
