/** Keeps the page's files, so that it works without a network; gives them the headers that threads need. */

/* global VERSION, SHELL, LARGE, HEADERS */ // from build.mjs
const FILES = `files-${VERSION}`; // renewed with each version of the page
const ENGINE = "engine"; // model and ONNX Runtime: large, and named by their content

self.addEventListener("install", (event) => {
  self.skipWaiting();
  const fresh = SHELL.map((name) => new Request(name, { cache: "reload" }));
  event.waitUntil(caches.open(FILES).then((cache) => cache.addAll(fresh)));
});

self.addEventListener("activate", (event) => {
  const clean = async () => {
    for (const name of await caches.keys()) if (name !== FILES && name !== ENGINE) await caches.delete(name);
    const cache = await caches.open(ENGINE), wanted = LARGE.map((name) => new URL(name, self.location).href);
    for (const request of await cache.keys()) if (!wanted.includes(request.url)) await cache.delete(request);
    await self.clients.claim();
  };
  event.waitUntil(clean());
});

self.addEventListener("fetch", (event) => {
  if (event.request.method === "GET" && event.request.url.startsWith(self.registration.scope)) {
    event.respondWith(answer(event.request));
  }
});

async function answer(request) {
  const kept = await caches.match(request, { ignoreSearch: true, ignoreVary: true });
  if (kept) return withHeaders(kept);
  const response = await fetch(request);
  const isLarge = LARGE.some((name) => request.url === new URL(name, self.location).href);
  if (response.ok && isLarge) {
    const cache = await caches.open(ENGINE);
    await cache.put(request, response.clone());
  }
  return withHeaders(response);
}

function withHeaders(response) {
  const headers = new Headers(response.headers);
  for (const [name, value] of Object.entries(HEADERS)) headers.set(name, value);
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}
