// Go on with a run with other settings from here on, or with more steps. One in progress stops for that, and goes on at once.
import { $, ask, get, later, make, run } from "./common.js";
import { field } from "./form.js";

export async function openResume(found) {
  const settings = (await get("/settings")).filter((setting) => setting.mid_run);
  const fields = settings.map((setting) => field(setting, "new"));
  const inputs = fields.map((part) => part.querySelector("input"));
  for (const input of inputs) input.placeholder = "unchanged";
  const steps = make("input", { id: "resume-steps", inputmode: "numeric", placeholder: found.steps ? String(found.steps) : "unchanged" });
  const find = make("input", { id: "resume-find", type: "search", placeholder: "find a setting …", "aria-controls": "resume-settings", oninput: () => {
    const wanted = find.value.toLowerCase().trim();
    for (const part of fields) part.hidden = Boolean(wanted) && !part.dataset.words.includes(wanted);
  } });
  const error = make("p", { class: "error", role: "alert" });
  const notes = make("ul", { class: "notes", id: "resume-notes", "aria-live": "polite" });
  const asked = () => ({
    settings: Object.fromEntries(inputs.filter((input) => input.value.trim()).map((input) => [input.dataset.name, input.value.trim()])),
    ...(steps.value.trim() ? { steps: Number(steps.value) } : {}),
  });
  let number = 0;
  const check = later(350, async () => {
    const own = ++number;
    const show = (lines, bad) => { if (own === number && !error.textContent) notes.replaceChildren(...lines.map((line) => make("li", bad ? { class: "bad" } : {}, line))); };
    try { show((await (await ask(`${run(found.id)}/resume/check`, "POST", asked())).json()).notes); }
    catch (problem) { show([problem.message], true); }
  });
  $("resume").replaceChildren(make("form", { class: "inside", oninput: (event) => { if (event.target !== find) { error.textContent = ""; check(); } }, onsubmit: async (event) => {
    event.preventDefault();
    error.textContent = "";
    try {
      await ask(`${run(found.id)}/resume`, "POST", asked());
      $("resume").close();
    } catch (problem) { number++; notes.replaceChildren(); error.textContent = problem.message; }
  } },
    make("h2", { id: "resume-title" }, `Go on with “${found.prompt}”`),
    make("p", { class: "hint" }, found.state === "running" ? "What you change here holds from the next step on, and is recorded with the run. It saves a checkpoint and goes on from there."
      : `What you change here holds from step ${found.step} on, and is recorded with the run.`),
    make("label", { for: "resume-steps" }, "Steps"), steps,
    make("label", { for: "resume-find" }, "Settings"), find,
    make("div", { id: "resume-settings" }, ...fields),
    notes, error,
    make("div", { class: "buttons" }, make("button", { type: "submit", class: "primary" }, "Go on"),
      make("button", { type: "button", onclick: () => $("resume").close() }, "Cancel"))));
  $("resume").showModal();
}

$("resume").addEventListener("close", () => $("resume").replaceChildren());
