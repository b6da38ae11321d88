// The studio's page: the gallery, and what happens. It talks to the server that it came from and to nobody else.
import { $, STATES, make, run, say } from "./common.js";
import { compareBox } from "./compare.js";
import { fillForm } from "./form.js";
import { showNow } from "./now.js";
import { openViewer, refreshViewer } from "./viewer.js";

let all = [];
const cards = new Map();

function card(found) {
  const image = found.files?.includes("preview.png") ? make("img", { src: `${run(found.id)}/front.jpg?${found.step}`, alt: "", loading: "lazy" }) : "no picture yet";
  return make("li", { class: "card" },
    make("button", { type: "button", onclick: () => openViewer(found.id, all), "aria-label": `Open ${found.prompt}, ${STATES[found.state]}` },
      make("div", { class: "picture" }, image),
      make("div", { class: "words" }, make("strong", {}, found.prompt || found.id),
        make("small", {}, `${found.preset}, seed ${found.seed} `), make("span", { class: `badge ${found.state}` }, STATES[found.state] ?? found.state))),
    found.files?.includes("asset.glb") && compareBox(found));
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
  const now = all.filter((one) => ["running", "stopping"].includes(one.state)), paused = all.filter((one) => one.state === "paused");
  const waiting = all.filter((one) => one.state === "queued").length;
  showNow([...now, ...paused]);
  showGallery();
  const making = now.length > 1 ? `making ${now.length} assets` : now.length ? `making “${now[0].prompt || now[0].id}”` : "idle";
  say([making, waiting && `${waiting} in the queue`, paused.length && `${paused.length} paused`].filter(Boolean).join(", "));
  if ($("viewer").open) refreshViewer(all);
}

function listen() {
  const events = new EventSource("/events");
  events.onmessage = (event) => update(JSON.parse(event.data));
  events.onerror = () => say("the server does not answer; trying again …");
}

fillForm().catch((error) => { $("form-error").textContent = error.message; });
listen();
