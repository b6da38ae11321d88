// The form of a new run: presets, settings, suggestions of words, what the prior does not know.
import { $, ask, get, later, make } from "./common.js";

let presets = {}, words = { things: [], looks: [] };
const changed = new Set();

export function field(setting, place = "set") {
  const id = `${place}-${setting.name}`;
  const input = make("input", { id, "data-name": setting.name, placeholder: setting.default, "aria-describedby": `${id}-help` });
  if (place === "set") input.addEventListener("input", () => (input.value.trim() ? changed.add(setting.name) : changed.delete(setting.name)));
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

export async function fillForm() {
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

// A reference picture in place of words, or beside them.
let picture = "", presetBefore = "";

function dropPicture() {
  picture = "";
  $("picture").value = ""; $("seen").textContent = ""; $("no-picture").hidden = true;
  box.required = true;
  if (presetBefore) { $("preset").value = presetBefore; presetBefore = ""; showPreset(); }
}

$("picture").addEventListener("change", async () => {
  const [file] = $("picture").files;
  if (!file) return dropPicture();
  $("seen").textContent = "looking at the picture …";
  try {
    const answer = await fetch("/pictures", { method: "POST", headers: { "Content-Type": file.type || "application/octet-stream" }, body: file });
    const said = answer.headers.get("Content-Type")?.includes("json") ? await answer.json() : { detail: await answer.text() };
    if (!answer.ok) throw new Error(said.detail);
    picture = said.id;
    $("seen").textContent = `The prior sees ${said.seen}.`;
    $("no-picture").hidden = false;
    box.required = false;
    const asks = Object.keys(presets).find((name) => presets[name].picture);
    if (asks && !presets[$("preset").value].picture) { presetBefore = $("preset").value; $("preset").value = asks; showPreset(); }
  } catch (error) { dropPicture(); $("seen").textContent = error.message; }
});
$("no-picture").addEventListener("click", dropPicture);

let start = "";

function setStart(found) {
  start = found?.id ?? "";
  $("begins").hidden = !start;
  $("begins").firstElementChild.textContent = start ? `Begins with the scene of “${found.prompt}” (${start}).` : "";
}
$("no-start").addEventListener("click", () => setStart(null));

$("make").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("form-error").textContent = "";
  const settings = { seed: $("seed").value.trim() || "0" };
  if ($("steps").value.trim()) settings.steps = $("steps").value.trim();
  for (const name of changed) settings[name] = document.getElementById(`set-${name}`).value.trim();
  const button = $("make").querySelector(".primary");
  button.disabled = true;
  try {
    await ask("/runs", "POST", { prompt: box.value, preset: $("preset").value, settings, picture, start });
  } catch (error) { $("form-error").textContent = error.message; }
  button.disabled = false;
});

// Fill in the settings of a run; ``branch``: begin with its scene, too.
export function again(found, branch = false) {
  setStart(branch ? found : null);
  box.value = found.prompt; $("seed").value = found.seed;
  if (found.preset in presets) { $("preset").value = found.preset; showPreset(); }
  box.focus(); check();
}
