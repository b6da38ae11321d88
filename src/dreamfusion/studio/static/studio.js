// The studio's page. It talks to the server that it came from and to nobody else.
const $ = (id) => document.getElementById(id);
const make = (tag, attributes = {}, ...inside) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...inside.filter((part) => part != null && part !== false));
  return element;
};

async function ask(path, method = "GET", body) {
  const answer = await fetch(path, {
    method,
    headers: body === undefined ? {} : { "Content-Type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (!answer.ok) {
    let said = `${answer.status} ${answer.statusText}`;
    try { said = (await answer.json()).detail || said; } catch { /* not JSON */ }
    throw new Error(said);
  }
  return answer;
}
const get = async (path) => (await ask(path)).json();
const run = (id) => `/runs/${encodeURIComponent(id)}`;
const clock = (seconds) => {
  if (seconds == null || !isFinite(seconds)) return "–:––";
  const whole = Math.round(seconds), hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
  const two = (n) => String(n).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
};
const later = (wait, act) => { let timer; return (...given) => { clearTimeout(timer); timer = setTimeout(() => act(...given), wait); }; };
const STATES = { queued: "in the queue", running: "in progress", stopping: "stopping", stopped: "stopped", done: "done", failed: "failed", broken: "broken" };

// ---- the form

let presets = {}, words = { things: [], looks: [] };
const changed = new Set();

function field(setting) {
  const id = `set-${setting.name}`;
  const input = make("input", { id, "data-name": setting.name, placeholder: setting.default, "aria-describedby": `${id}-help` });
  input.addEventListener("input", () => (input.value.trim() ? changed.add(setting.name) : changed.delete(setting.name)));
  return make("div", { class: "setting", "data-words": `${setting.name} ${setting.help}`.toLowerCase() },
    make("label", { for: id }, setting.name), input, make("p", { class: "hint", id: `${id}-help` }, `${setting.help} [${setting.allowed}]`));
}

function showPreset() {
  const chosen = presets[$("preset").value];
  if (!chosen) return;
  $("about").textContent = chosen.about;
  $("steps").placeholder = chosen.values.steps ?? "";
  for (const [name, value] of Object.entries(chosen.values)) {
    const input = document.getElementById(`set-${name}`);
    if (input) input.placeholder = value;
  }
}

async function fillForm() {
  let settings;
  [presets, settings, words] = await Promise.all([get("/presets"), get("/settings"), get("/vocabulary")]);
  $("preset").append(...Object.keys(presets).map((name) => make("option", { value: name }, name)));
  $("preset").value = "fast" in presets ? "fast" : Object.keys(presets)[0];
  for (const setting of settings) {
    if (["seed", "steps"].includes(setting.name)) continue;
    (setting.main ? $("main-settings") : $("other-settings")).append(field(setting));
  }
  showPreset();
}

$("preset").addEventListener("change", showPreset);
$("dice").addEventListener("click", () => { $("seed").value = Math.floor(Math.random() * 1e6); });
$("find").addEventListener("input", () => {
  const wanted = $("find").value.toLowerCase().trim();
  for (const part of $("other-settings").children) part.hidden = Boolean(wanted) && !part.dataset.words.includes(wanted);
});

// Suggestions: names that begin with the words before the cursor, the longest match first.
const box = $("prompt"), list = $("words");
let offered = [], chosen = -1;

function suggestions() {
  const before = box.value.slice(0, box.selectionStart).toLowerCase();
  const parts = before.split(/[^a-z0-9'-]+/);
  for (let count = Math.min(3, parts.length); count > 0; count--) {
    const said = parts.slice(-count).join(" ");
    if (said.trim().length < 2) continue;
    const found = [...words.looks, ...words.things].filter((name) => name.startsWith(said) && name !== said);
    if (found.length) return found.slice(0, 8).map((name) => ({ name, length: said.length }));
  }
  return [];
}

function showWords() {
  offered = document.activeElement === box ? suggestions() : [];
  chosen = -1;
  list.replaceChildren(...offered.map((word, k) => make("li", {
    role: "option", id: `word-${k}`, "aria-selected": "false",
    onpointerdown: (event) => { event.preventDefault(); take(k); },
  }, word.name)));
  list.hidden = !offered.length;
  box.setAttribute("aria-expanded", String(Boolean(offered.length)));
  box.removeAttribute("aria-activedescendant");
}

function choose(k) {
  chosen = (k + offered.length) % offered.length;
  [...list.children].forEach((item, at) => item.setAttribute("aria-selected", String(at === chosen)));
  list.children[chosen].scrollIntoView({ block: "nearest" });
  box.setAttribute("aria-activedescendant", `word-${chosen}`);
}

function take(k) {
  const { name, length } = offered[k], at = box.selectionStart;
  box.value = box.value.slice(0, at - length) + name + box.value.slice(at);
  box.selectionStart = box.selectionEnd = at - length + name.length;
  offered = [];
  showWords();
  list.hidden = true;
  check();
}

box.addEventListener("input", () => { showWords(); check(); });
box.addEventListener("blur", () => { list.hidden = true; box.setAttribute("aria-expanded", "false"); });
box.addEventListener("keydown", (event) => {
  const open = !list.hidden && offered.length;
  if (open && event.key === "ArrowDown") { event.preventDefault(); choose(chosen + 1); }
  else if (open && event.key === "ArrowUp") { event.preventDefault(); choose(chosen < 0 ? -1 : chosen - 1); }
  else if (open && chosen >= 0 && (event.key === "Enter" || event.key === "Tab")) { event.preventDefault(); take(chosen); }
  else if (event.key === "Escape" && open) { event.preventDefault(); list.hidden = true; offered = []; }
  else if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); $("make").requestSubmit(); }
});

let asked = 0;
const check = later(350, async () => {
  const prompt = box.value.trim(), number = ++asked;
  if (!prompt) return $("notes").replaceChildren();
  // The first answer takes some seconds: the server loads the prior.
  setTimeout(() => { if (number === asked && !answered) $("notes").replaceChildren(make("li", {}, "checking the words …")); }, 1500);
  let answered = false;
  try {
    const said = await get(`/check?prompt=${encodeURIComponent(prompt)}`);
    answered = true;
    if (number !== asked) return;
    const lines = said.error ? [make("li", { class: "bad" }, said.error)]
      : said.notes.length ? said.notes.map((note) => make("li", {}, note))
      : [make("li", { class: "good" }, "The prior knows these words.")];
    $("notes").replaceChildren(...lines);
  } catch (error) { answered = true; if (number === asked) $("notes").replaceChildren(make("li", { class: "bad" }, error.message)); }
});

$("make").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("form-error").textContent = "";
  const settings = { seed: $("seed").value.trim() || "0" };
  if ($("steps").value.trim()) settings.steps = $("steps").value.trim();
  for (const name of changed) settings[name] = document.getElementById(`set-${name}`).value.trim();
  const button = $("make").querySelector(".primary");
  button.disabled = true;
  try {
    await ask("/runs", "POST", { prompt: box.value, preset: $("preset").value, settings });
  } catch (error) { $("form-error").textContent = error.message; }
  button.disabled = false;
});

// ---- the run in progress

let shown = null, curve = [], lastPicture = -1;

function polyline(points, key) {
  const values = points.filter((p) => p[key] != null);
  if (values.length < 2) return "";
  const ys = values.map((p) => p[key]), low = Math.min(...ys), high = Math.max(...ys), first = values[0].step, last = values.at(-1).step;
  return values.map((p) => `${(100 * (p.step - first) / Math.max(last - first, 1)).toFixed(2)},${(38 - 36 * (p[key] - low) / Math.max(high - low, 1e-9)).toFixed(2)}`).join(" ");
}

function buildNow(id) {
  $("now").replaceChildren(
    make("div", { class: "row" }, make("h2", { id: "now-title" }), make("span", { class: "badge running", id: "now-state" })),
    make("div", { class: "stage" },
      make("img", { id: "now-picture", alt: "The object as it is now", src: "/static/icon.svg" }),
      make("div", {},
        make("progress", { id: "now-progress", max: 1, value: 0, "aria-label": "Steps done" }),
        make("p", { class: "figures", id: "now-figures" }),
        curveOf("now-curve", "Residual of the score, over the steps"),
        make("p", { class: "hint" }, "The residual of the score: how much the prior still wants to change."),
        make("ul", { class: "notes", id: "now-notes" }),
        make("div", { class: "buttons" },
          make("button", { type: "button", id: "now-stop", onclick: () => act(id, "stop") }, "Stop (keeps the checkpoint)")))));
}

function curveOf(id, label) {
  const ns = "http://www.w3.org/2000/svg", svg = document.createElementNS(ns, "svg");
  svg.setAttribute("class", "curve"); svg.setAttribute("viewBox", "0 0 100 40"); svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img"); svg.setAttribute("aria-label", label);
  const line = document.createElementNS(ns, "polyline");
  line.id = id;
  svg.append(line);
  return svg;
}

async function showNow(found) {
  if (!found) { $("now").hidden = true; shown = null; return; }
  if (shown !== found.id) {
    shown = found.id; curve = []; lastPicture = -1;
    buildNow(found.id);
    get(run(found.id)).then((whole) => { if (shown === found.id) curve = [...whole.curves, ...curve]; }).catch(() => {});
  }
  $("now").hidden = false;
  $("now-title").textContent = found.prompt;
  $("now-state").textContent = STATES[found.state];
  $("now-stop").disabled = found.state === "stopping";
  const metrics = found.metrics ?? {};
  if (found.step && (!curve.length || curve.at(-1).step < found.step)) curve.push({ step: found.step, ...metrics });
  if (curve.length > 600) curve = curve.filter((_, k) => k % 2 === 0);
  $("now-curve").setAttribute("points", polyline(curve, metrics.residual_norm == null && metrics.similarity != null ? "similarity" : "residual_norm"));
  if (found.steps) { $("now-progress").max = found.steps; $("now-progress").value = found.step; } else $("now-progress").removeAttribute("value");
  const figures = [["step", found.steps ? `${found.step} of ${found.steps}` : "–"], ["left", found.doing ? "–" : clock(found.left)]];
  if (metrics.residual_norm != null) figures.push(["residual", metrics.residual_norm.toPrecision(3)]);
  if (metrics.t != null) figures.push(["noise level", metrics.t.toFixed(2)]);
  if (metrics.opacity != null) figures.push(["opacity", metrics.opacity.toFixed(2)]);
  if (found.doing) figures.unshift(["now", found.doing + (found.share != null ? ` ${Math.round(100 * found.share)} %` : "")]);
  $("now-figures").replaceChildren(...figures.map(([name, value]) => make("span", {}, `${name} `, make("b", {}, value))));
  $("now-notes").replaceChildren(...(found.notes ?? []).map((note) => make("li", {}, note)));
  if (found.picture && found.picture !== lastPicture) {
    lastPicture = found.picture;
    $("now-picture").src = `${run(found.id)}/live.jpg?${found.picture}`;
  }
}

async function act(id, what, body = {}) {
  try { return await (await ask(`${run(id)}/${what}`, "POST", body)).json(); }
  catch (error) { say(error.message); }
}
const say = (text) => { $("status").textContent = text; };

// ---- the gallery

let all = [];
const cards = new Map();

function card(found) {
  const image = found.files?.includes("preview.png") ? make("img", { src: `${run(found.id)}/front.jpg?${found.step}`, alt: "", loading: "lazy" }) : "no picture yet";
  return make("li", { class: "card" },
    make("button", { type: "button", onclick: () => openViewer(found.id), "aria-label": `Open ${found.prompt}, ${STATES[found.state]}` },
      make("div", { class: "picture" }, image),
      make("div", { class: "words" }, make("strong", {}, found.prompt || found.id),
        make("small", {}, `${found.preset}, seed ${found.seed} `), make("span", { class: `badge ${found.state}` }, STATES[found.state] ?? found.state))));
}

function showGallery() {
  const wanted = $("filter").value.toLowerCase().trim();
  const visible = all.filter((found) => !wanted || `${found.prompt} ${found.id}`.toLowerCase().includes(wanted));
  $("empty").hidden = all.length > 0;
  const kept = new Set();
  const focused = document.activeElement;
  visible.forEach((found, at) => {
    const look = JSON.stringify([found.prompt, found.preset, found.seed, found.state, found.state === "running" ? 0 : found.step, found.files]);
    let known = cards.get(found.id);
    if (!known || known.look !== look) {
      const element = card(found);
      if (known) known.element.replaceWith(element);
      cards.set(found.id, (known = { look, element }));
    }
    kept.add(found.id);
    if ($("gallery").children[at] !== known.element) $("gallery").insertBefore(known.element, $("gallery").children[at] ?? null);
  });
  for (const [id, { element }] of cards) if (!kept.has(id)) { element.remove(); cards.delete(id); }
  if (focused && focused !== document.activeElement && document.contains(focused)) focused.focus();
}

$("filter").addEventListener("input", showGallery);

function update(found) {
  all = found;
  const now = all.find((one) => ["running", "stopping"].includes(one.state));
  const waiting = all.filter((one) => one.state === "queued").length;
  showNow(now);
  showGallery();
  say(`${now ? `making “${now.prompt}”` : "idle"}${waiting ? `, ${waiting} in the queue` : ""}`);
  if ($("viewer").open) refreshViewer();
}

function listen() {
  const events = new EventSource("/events");
  events.onmessage = (event) => update(JSON.parse(event.data));
  events.onerror = () => say("the server does not answer; trying again …");
}

// ---- one run, large

let opened = null, openedLook = "";

function openViewer(id) { opened = id; openedLook = ""; refreshViewer(); $("viewer").showModal(); }

function refreshViewer() {
  const found = all.find((one) => one.id === opened);
  if (!found) { $("viewer").close(); return; }
  const look = JSON.stringify([found.state, found.files, found.error]);
  if (look === openedLook) return;
  openedLook = look;
  const asset = found.files?.includes("asset.glb");
  const stage = asset
    ? make("model-viewer", { src: `${run(found.id)}/asset.glb?${found.step}`, "camera-controls": true, "auto-rotate": true, "shadow-intensity": "0.6", "interaction-prompt": "none", alt: `The asset: ${found.prompt}`, "environment-image": "neutral" })
    : make("div", { class: "stand" }, found.files?.includes("preview.png") ? make("img", { src: `${run(found.id)}/preview.png?${found.step}`, alt: "The scene from all sides" }) : "There is no picture yet.");
  const figures = found.figures ?? {}, cost = found.cost;
  const said = [["preset", found.preset], ["seed", found.seed], ["steps", `${found.step} of ${found.steps}`]];
  if (figures.triangles != null) said.push(["triangles", figures.triangles.toLocaleString()]);
  if (figures.pieces != null) said.push(["pieces", figures.pieces]);
  if (figures.iou != null) said.push(["silhouettes", figures.iou.toFixed(2)]);
  if (cost) said.push(["time", clock(cost.seconds)], ["energy", `${cost.wh.toFixed(2)} Wh${cost.energy.includes("estimate") ? " (estimate)" : ""}`]);
  if (cost?.cost != null) said.push(["cost", `${cost.cost.toFixed(4)} ${cost.currency}`]);
  const busy = ["running", "queued", "stopping"].includes(found.state);
  const error = make("p", { class: "error", role: "alert" }, found.error ?? "");
  const attempt = async (work) => { error.textContent = ""; try { await work(); } catch (problem) { error.textContent = problem.message; } };
  $("viewer").replaceChildren(stage, make("div", { class: "inside" },
    make("div", { class: "row" }, make("h2", { id: "viewer-title" }, found.prompt || found.id), make("span", { class: `badge ${found.state}` }, STATES[found.state])),
    make("p", { class: "figures" }, ...said.map(([name, value]) => make("span", {}, `${name} `, make("b", {}, String(value))))),
    error,
    make("div", { class: "buttons" },
      asset && make("a", { class: "button primary", href: `${run(found.id)}/asset.glb`, download: `${found.id}.glb` }, "Download GLB"),
      asset && make("button", { type: "button", onclick: () => openExport(found) }, "Export …"),
      found.files?.includes("turntable.mp4") && make("a", { class: "button", href: `${run(found.id)}/turntable.mp4`, download: `${found.id}.mp4` }, "Film"),
      found.files?.includes("preview.png") && make("a", { class: "button", href: `${run(found.id)}/preview.png`, target: "_blank", rel: "noopener" }, "All sides"),
      busy && make("button", { type: "button", onclick: () => attempt(() => ask(`${run(found.id)}/stop`, "POST", {})) }, found.state === "queued" ? "Take out of the queue" : "Stop"),
      !busy && found.state !== "done" && found.steps > 0 && make("button", { type: "button", class: "primary", onclick: () => attempt(() => ask(`${run(found.id)}/resume`, "POST", {})) }, "Resume"),
      !busy && make("button", { type: "button", onclick: () => again(found) }, "Use these settings"),
      !busy && make("button", { type: "button", class: "danger", onclick: () => attempt(async () => {
        if (confirm(`Move “${found.prompt}” to the trash?`)) { await ask(run(found.id), "DELETE"); $("viewer").close(); }
      }) }, "Delete"),
      make("button", { type: "button", onclick: () => $("viewer").close() }, "Close"))));
}

function again(found) {
  box.value = found.prompt; $("seed").value = found.seed;
  if (found.preset in presets) { $("preset").value = found.preset; showPreset(); }
  $("viewer").close(); box.focus(); check();
}

$("viewer").addEventListener("close", () => { opened = null; $("viewer").replaceChildren(); });

// ---- export

function openExport(found) {
  const format = make("select", { id: "export-format" }, ...["glb", "usdz", "obj", "ply", "stl", "3mf"].map((name) => make("option", {}, name)));
  const faces = make("input", { id: "export-faces", inputmode: "numeric", value: "20000" });
  const texture = make("select", { id: "export-texture" }, ...[512, 1024, 2048, 4096].map((n) => make("option", { value: n, selected: n === 1024 }, String(n))));
  const compress = make("input", { id: "export-compress", type: "checkbox" });
  const error = make("p", { class: "error", role: "alert" });
  const button = make("button", { type: "submit", class: "primary" }, "Export and download");
  const form = make("form", { class: "inside", onsubmit: async (event) => {
    event.preventDefault();
    error.textContent = ""; button.disabled = true; button.textContent = "Exporting …";
    try {
      const answer = await ask(`${run(found.id)}/export`, "POST", { format: format.value, faces: Number(faces.value), texture_size: Number(texture.value), compress: compress.checked });
      const name = /filename="?([^";]+)/.exec(answer.headers.get("Content-Disposition") ?? "")?.[1] ?? `${found.id}.${format.value}`;
      const link = make("a", { href: URL.createObjectURL(await answer.blob()), download: name });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
      $("export").close();
    } catch (problem) { error.textContent = problem.message; }
    button.disabled = false; button.textContent = "Export and download";
  } },
    make("h2", { id: "export-title" }, `Export “${found.prompt}”`),
    make("label", { for: "export-format" }, "Format"), format,
    make("label", { for: "export-faces" }, "Most triangles"), faces,
    make("label", { for: "export-texture" }, "Texture, texels per side"), texture,
    make("label", { for: "export-compress" }, compress, " Compress (Draco and WebP; GLB and USDZ only)"),
    error,
    make("div", { class: "buttons" }, button, make("button", { type: "button", onclick: () => $("export").close() }, "Cancel")));
  $("export").replaceChildren(form);
  $("export").showModal();
}

fillForm().catch((error) => { $("form-error").textContent = error.message; });
listen();
