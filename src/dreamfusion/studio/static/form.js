// The form of a new run: presets, settings, suggestions of words, what the prior does not know.
import { $, ask, get, later, make, run } from "./common.js";

let presets = {}, words = { things: [], looks: [] };

export function field(setting, place = "set") {
  const id = `${place}-${setting.name}`;
  const input = make("input", { id, "data-name": setting.name, placeholder: setting.default, "aria-describedby": `${id}-help` });
  return make("div", { class: "setting", "data-words": `${setting.name} ${setting.help}`.toLowerCase() },
    make("label", { for: id }, setting.name), input, make("p", { class: "hint", id: `${id}-help` }, `${setting.help} [${setting.allowed}]`));
}

// The few settings that are always there, by the words that stand above them.
const LABELS = { "distillation.guidance_scale": "Guidance", "distillation.negative_prompt": "Without", "export.faces": "Triangles, at most", "export.texture_size": "Texture size" };

function mainField(setting) {
  const id = `set-${setting.name}`;
  return make("div", { class: "setting" }, make("label", { for: id }, LABELS[setting.name] ?? setting.name), make("input", { id, "data-name": setting.name }));
}

// The help of a field stands below all of them while it is used, and stays: nothing moves under the pointer.
function explain(input, setting) {
  input.title = setting.help;
  input.setAttribute("aria-description", setting.help);
  input.addEventListener("focus", () => { $("main-help").textContent = `${setting.name}: ${setting.help} [${setting.allowed}]`; });
}

const mainInputs = () => [...$("main-settings").querySelectorAll("[data-name]")];

// What the preset says stands in the empty fields; one that it does not have is not there.
function showPreset() {
  const chosen = presets[$("preset").value];
  if (!chosen) return;
  $("about").textContent = chosen.about;
  for (const input of mainInputs()) {
    const value = chosen.values[input.dataset.name];
    input.placeholder = value || "–";
    input.disabled = value == null;
    input.closest(".setting").hidden = input.disabled;
  }
}

function countOthers() {
  const count = [...$("other-settings").querySelectorAll("input")].filter((input) => input.value.trim()).length;
  $("others").textContent = count ? `(${count} set)` : "";
}

export async function fillForm() {
  let settings;
  [presets, settings, words] = await Promise.all([get("/presets"), get("/settings"), get("/vocabulary")]);
  $("preset").append(...Object.keys(presets).map((name) => make("option", { value: name }, name)));
  $("preset").value = "fast" in presets ? "fast" : Object.keys(presets)[0];
  for (const setting of settings) {
    if (!setting.main) { $("other-settings").append(field(setting)); continue; }
    if (!["seed", "steps"].includes(setting.name)) $("main-settings").append(mainField(setting));
    explain(mainInputs().find((input) => input.dataset.name === setting.name), setting);
  }
  showPreset();
}

$("other-settings").addEventListener("input", countOthers);
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

// A reference picture in place of words, or beside them. ``picture``: its id, or that of a run that has it.
let picture = "", presetBefore = "";

function setPicture(id, text) {
  picture = id;
  $("seen").textContent = text;
  $("no-picture").hidden = false;
  box.required = false;
}

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
    setPicture(said.id, `The prior sees ${said.seen}.`);
    const asks = Object.keys(presets).find((name) => presets[name].picture);
    if (asks && !presets[$("preset").value].picture) { presetBefore = $("preset").value; $("preset").value = asks; showPreset(); }
  } catch (error) { dropPicture(); $("seen").textContent = error.message; }
});
$("no-picture").addEventListener("click", dropPicture);

let start = "";

function setStart(id, text = "") {
  start = id;
  $("begins").hidden = !start;
  $("begins").firstElementChild.textContent = text;
}
$("no-start").addEventListener("click", () => setStart(""));

// The settings that somebody has typed, by name.
const fields = () => [...$("make").querySelectorAll("[data-name]")];
function given() {
  const filled = fields().filter((input) => input.value.trim() && !input.disabled);
  return Object.fromEntries(filled.map((input) => [input.dataset.name, input.value.trim()]));
}

$("make").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("form-error").textContent = $("left-out").textContent = "";
  const button = $("make").querySelector(".primary");
  button.disabled = true;
  try {
    await ask("/runs", "POST", { prompt: box.value, preset: $("preset").value, settings: { seed: "0", ...given() }, picture, start });
  } catch (error) { $("form-error").textContent = error.message; }
  button.disabled = false;
});

// Fill the form with what makes a run once more, and with nothing else; ``branch``: let it begin with that run's scene.
export async function again(found, branch = false) {
  const whole = await get(run(found.id)), body = whole.again;
  if (!body) throw new Error("this run's settings cannot be read");
  presetBefore = ""; dropPicture();
  box.value = body.prompt; $("preset").value = body.preset; showPreset();
  const settings = { seed: "0", ...body.settings };
  for (const input of fields()) input.value = settings[input.dataset.name] ?? "";
  if (body.picture) setPicture(body.picture, `The picture of “${found.prompt}” (${body.picture}).`);
  const from = branch ? found.id : body.start ?? "";
  setStart(from, branch ? `Begins with the scene of “${found.prompt}” (${from}).` : `Begins with the scene of ${from}, as that run did.`);
  $("form-error").textContent = $("main-help").textContent = "";
  $("left-out").textContent = whole.left_out.length ? `Not taken over: ${whole.left_out.join(", ")}.` : "";
  countOthers();
  check();
}
