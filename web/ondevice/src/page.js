/** The page: photos and the camera in, pictures and files out. The work is done in `worker.js`. */

import tables from "./tables.json" with { type: "json" };
import { TEXTS } from "./texts.js";

const SHOWN_AT_FIRST = "copper";
const EXAMPLES = [1, 2, 3];
const element = (id) => document.getElementById(id);
const main = document.querySelector("main");
const state = { language: "en", file: "photo", type: "image/png", stream: null, said: ["loading", { percent: 0 }] };

// -------------------------------------------------------------------------------------------------- texts

/** A text in the visitor's language, with its `{fields}` filled in. */
function text(key, fields = {}) {
  return TEXTS[state.language][key].replace(/{(\w+)}/g, (_, field) => fields[field]);
}

/** Says something in the line that screen readers announce. */
function say(key, fields) {
  state.said = [key, fields];
  element("status").textContent = text(key, fields);
  element("alert").hidden = true;
}

/** Tells the visitor what went wrong. */
function complain(key) {
  element("alert").textContent = text(key);
  element("alert").hidden = false;
}

function setLanguage(language) {
  state.language = language;
  document.documentElement.lang = language;
  document.title = text("title");
  for (const part of document.querySelectorAll("[data-text]")) part.textContent = text(part.dataset.text);
  for (const part of document.querySelectorAll("[data-label]")) part.setAttribute("aria-label", text(part.dataset.label));
  for (const swatch of document.querySelectorAll("[data-dye]")) {
    swatch.ariaLabel = swatch.parentElement.title = tables.dyes[swatch.dataset.dye][language];
  }
  element("own").ariaLabel = element("own").parentElement.title = text("own");
  for (const button of element("examples").children) button.ariaLabel = text("example", { number: button.value });
  element("language").lang = language === "en" ? "ko" : "en";
  showDye();
  say(...state.said);
}

// -------------------------------------------------------------------------------------------------- the worker

const worker = new Worker("worker.js", { type: "module" });
const waiting = new Map();
let calls = 0;

/** Calls a function of the worker. @returns {Promise<any>} its result, or an error */
function call(name, values = [], transfer = []) {
  return new Promise((resolve, reject) => {
    waiting.set(++calls, { resolve, reject });
    worker.postMessage({ id: calls, name, values }, transfer);
  });
}

worker.onmessage = ({ data: { id, result, error, progress } }) => {
  if (progress !== undefined) {
    say("loading", { percent: Math.floor(100 * progress) });
    return;
  }
  const { resolve, reject } = waiting.get(id);
  waiting.delete(id);
  if (error) reject(new Error(error));
  else resolve(result);
};

/** Shows that work is going on until a promise settles. */
async function busy(promise) {
  main.toggleAttribute("data-busy", true);
  try {
    return await promise;
  } finally {
    main.toggleAttribute("data-busy", false);
  }
}

// -------------------------------------------------------------------------------------------------- pictures

/** @param {"empty" | "photo" | "live"} name what the page shows */
function setState(name) {
  main.dataset.state = name;
  element("alert").hidden = true;
}

/** A canvas of the page, at this size. */
function resized(id, width, height) {
  const canvas = element(id);
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  element("compare").style.setProperty("--ratio", width / height);
  return canvas;
}

const paint = (id, { width, height, data }) =>
  resized(id, width, height).getContext("2d").putImageData(new ImageData(data, width, height), 0, 0);

const chosen = (name) => document.querySelector(`input[name=${name}]:checked`).value;
const dye = () => ({
  color: chosen("dye") === "own" ? element("own").value : chosen("dye"),
  strength: element("strength").value / 100,
  bleach: element("bleach").checked,
});

function showDye() {
  const named = document.querySelector("input[name=dye]:checked").dataset.dye;
  element("dye-name").textContent = named ? tables.dyes[named][state.language] : element("own").value;
  element("strength-value").textContent = `${element("strength").value}%`;
}

let isDrawing = false, isOutdated = false;

/** Draws the picture anew after a setting changed; of several changes in a row, the last one counts. */
async function redraw() {
  showDye();
  main.dataset.view = chosen("view");
  isOutdated = true;
  if (isDrawing || main.dataset.state !== "photo") return;
  isDrawing = true;
  while (isOutdated) {
    isOutdated = false;
    const start = performance.now();
    paint("after", await call("draw", [chosen("view"), dye()]));
    main.dataset.drawn = Math.round(performance.now() - start); // for benchmarks/ondevice.py
  }
  isDrawing = false;
}

/** Opens a photo: a file, or a frame of the camera. */
async function open(source) {
  stopCamera();
  state.file = source.name?.replace(/\.[^.]*$/, "") || "photo";
  state.type = source.type === "image/jpeg" ? "image/jpeg" : "image/png";
  say("opening");
  try {
    const start = performance.now();
    const { preview, width, height, share, middle, isReduced } = await busy(ready.then(() => call("open", [source])));
    main.dataset.opened = Math.round(performance.now() - start);
    paint("before", preview);
    paint("after", preview);
    setState("photo");
    slideTo(Math.round(100 * middle));
    say(share ? "found" : "none", { percent: (100 * share).toFixed(1), width, height });
    if (isReduced) say("reduced", { width, height });
    await redraw();
  } catch {
    complain(source instanceof Blob ? "unreadable" : "failed");
  }
}

/** Downloads a result at the photo's full size. */
async function save(kind) {
  const said = state.said, type = kind === "recolor" ? state.type : "image/png";
  say("saving");
  try {
    const link = document.createElement("a");
    link.download = `${state.file}_${kind}.${type === "image/jpeg" ? "jpg" : "png"}`;
    link.href = URL.createObjectURL(await busy(call("save", [kind, dye(), type])));
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    say("saved", { name: link.download });
  } catch {
    say(...said);
    complain("failed");
  }
}

function slideTo(percent) {
  element("slide").value = percent;
  main.dataset.only = percent < 15 ? "after" : percent > 85 ? "before" : ""; // a label must not name the other picture
  element("compare").style.setProperty("--cut", `${percent}%`);
}

// -------------------------------------------------------------------------------------------------- the camera

async function startCamera() {
  try {
    await ready;
    state.stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user", width: { ideal: 1280 } } });
  } catch {
    complain("noCamera");
    return;
  }
  const video = element("video");
  video.srcObject = state.stream;
  await video.play();
  slideTo(0);
  say("live");
  const start = performance.now();
  for (let frames = 1, last = start, fastest = Infinity; state.stream; frames++) {
    const frame = await createImageBitmap(video), copy = await createImageBitmap(frame);
    const hair = await call("frame", [copy, dye()], [copy]);
    if (!state.stream) break;
    paintFrame(frame, hair);
    if (frames === 1) setState("live");
    const now = performance.now();
    fastest = Math.min(fastest, now - last);
    last = now;
    Object.assign(main.dataset, { frames, seconds: (now - start) / 1000, fastest }); // for benchmarks/ondevice.py
  }
}

/** Paints a frame of the camera as it is, and with its dyed hair, which is smaller. */
function paintFrame(frame, hair) {
  const layer = new OffscreenCanvas(hair.width, hair.height);
  layer.getContext("2d").putImageData(new ImageData(hair.data, hair.width, hair.height), 0, 0);
  for (const id of ["before", "after"]) {
    const context = resized(id, frame.width, frame.height).getContext("2d");
    context.drawImage(frame, 0, 0);
    if (id === "after") context.drawImage(layer, 0, 0, frame.width, frame.height);
  }
  frame.close();
}

function stopCamera() {
  state.stream?.getTracks().forEach((track) => track.stop());
  state.stream = null;
  if (main.dataset.state === "live") setState("empty");
}

// -------------------------------------------------------------------------------------------------- the page's parts

function build() {
  const swatches = tables.dyes.map(({ name, color }, number) => {
    const label = document.createElement("label"), input = document.createElement("input");
    Object.assign(input, { type: "radio", name: "dye", value: color, checked: name === SHOWN_AT_FIRST });
    input.dataset.dye = number;
    label.style.setProperty("--dye", color);
    label.append(input);
    return label;
  });
  const label = document.createElement("label"), radio = document.createElement("input"), own = document.createElement("input");
  Object.assign(radio, { type: "radio", name: "dye", value: "own", tabIndex: -1 });
  Object.assign(own, { type: "color", id: "own", value: "#a02060" });
  own.oninput = own.onclick = () => {
    radio.checked = true;
    redraw();
  };
  label.className = "own";
  label.append(radio, own);
  element("swatches").append(...swatches, label);
  for (const number of EXAMPLES) {
    const button = document.createElement("button"), image = document.createElement("img");
    Object.assign(image, { src: `example-${number}.jpg`, alt: "", width: 72, height: 72 });
    button.value = number;
    button.append(image);
    button.onclick = async () => {
      const response = await fetch(image.src);
      open(new File([await response.blob()], `example-${number}.jpg`, { type: "image/jpeg" }));
    };
    element("examples").append(button);
  }
}

function listen() {
  const each = (selector, act) => document.querySelectorAll(selector).forEach((part) => (part.onclick = () => act(part)));
  each(".choose", () => element("file").click());
  each(".camera", startCamera);
  each("[data-save]", (button) => save(button.dataset.save));
  element("file").onchange = ({ target }) => {
    if (target.files[0]) open(target.files[0]);
    target.value = "";
  };
  element("capture").onclick = async () => open(await createImageBitmap(element("video")));
  element("stop").onclick = stopCamera;
  element("slide").oninput = ({ target }) => slideTo(target.value);
  element("language").onclick = () => {
    setLanguage(state.language === "en" ? "ko" : "en");
    localStorage.setItem("language", state.language);
  };
  document.querySelector("aside").oninput = redraw;
  addEventListener("paste", ({ clipboardData }) => clipboardData.files[0] && open(clipboardData.files[0]));
  addEventListener("dragover", (event) => {
    event.preventDefault();
    main.toggleAttribute("data-drag", true);
  });
  addEventListener("dragleave", ({ relatedTarget }) => relatedTarget || main.toggleAttribute("data-drag", false));
  addEventListener("drop", (event) => {
    event.preventDefault();
    main.toggleAttribute("data-drag", false);
    if (event.dataTransfer.files[0]) open(event.dataTransfer.files[0]);
  });
}

/** Waits until the service worker keeps what is loaded from here on, so that the page works offline afterwards. */
async function register() {
  if (!navigator.serviceWorker) return;
  await navigator.serviceWorker.register("service-worker.js");
  if (navigator.serviceWorker.controller) return;
  await new Promise((resolve) => navigator.serviceWorker.addEventListener("controllerchange", resolve, { once: true }));
}

build();
setLanguage(localStorage.getItem("language") ?? (navigator.language.startsWith("ko") ? "ko" : "en"));
listen();
main.dataset.view = "recolor";
const forced = new URLSearchParams(location.search).get("engine") ?? undefined; // for tests: wasm or webgpu
const ready = register().catch(() => {}).then(() => call("load", [forced])); // without a service worker, it works online
busy(ready).then(
  ({ engine, threads }) => {
    Object.assign(main.dataset, { engine, threads });
    if (main.dataset.state === "empty") element("status").textContent = "";
  },
  () => complain("noModel"),
);
