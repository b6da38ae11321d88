// The run in progress: its picture, figures and curves; it can be paused, changed and stopped from here.
import { $, STATES, ask, clock, get, make, run, say } from "./common.js";
import { showPlots } from "./plots.js";
import { openResume } from "./resume.js";
import { turnable, turning } from "./turn.js";

let shown = null, wanted = null, newest = null, curve = [], lastPicture = -1, lastPrior = -1;

function buildNow(id) {
  $("now").replaceChildren(
    make("div", { class: "buttons tabs", id: "now-tabs", role: "group", "aria-label": "Runs in progress", hidden: true }),
    make("div", { class: "row" }, make("h2", { id: "now-title" }), make("span", { class: "badge running", id: "now-state" })),
    make("div", { class: "stage" },
      turnable(id, make("img", { id: "now-picture", alt: "The object as it is now. Drag it or press the arrow keys to turn it; Escape lets it turn by itself.", src: "/static/icon.svg", tabindex: "0", draggable: "false" })),
      make("div", {},
        make("progress", { id: "now-progress", max: 1, value: 0, "aria-label": "Steps done" }),
        make("p", { class: "figures", id: "now-figures" }),
        make("div", { class: "plots", id: "now-plots", hidden: true }),
        make("figure", { id: "now-prior", hidden: true },
          make("img", { alt: "The noisy picture that the prior was shown, and the clean picture that it answered" }), make("figcaption", { class: "hint" })),
        make("ul", { class: "notes", id: "now-notes" }),
        make("div", { class: "buttons" },
          make("button", { type: "button", id: "now-pause", onclick: () => act(id, newest.state === "paused" ? "resume" : "pause") }),
          make("button", { type: "button", id: "now-change", onclick: () => openResume(newest).catch((error) => say(error.message)) }, "Change …"),
          make("button", { type: "button", id: "now-stop", onclick: () => act(id, "stop") }, "Stop")),
        make("p", { class: "hint", id: "now-hint" }))));
}

// One button for each run that is in progress or paused, where there are several.
function showTabs(runs) {
  const labels = runs.map((one) => one.prompt || one.id), look = JSON.stringify([labels, shown]);
  if ($("now-tabs").dataset.look === look) return;
  $("now-tabs").dataset.look = look;
  $("now-tabs").hidden = runs.length < 2;
  $("now-tabs").replaceChildren(...runs.map((one, k) => make("button", { type: "button", "aria-pressed": String(one.id === shown), onclick: () => { wanted = one.id; showNow(runs); } }, labels[k])));
}

export function showNow(runs) {
  const found = newest = runs.find((one) => one.id === wanted) ?? runs[0];
  if (!found) { $("now").hidden = true; shown = null; return; }
  const paused = found.state === "paused";
  if (shown !== found.id) {
    shown = found.id; curve = []; lastPicture = lastPrior = -1;
    buildNow(found.id);
    if (paused && found.files?.includes("preview.png")) $("now-picture").src = `${run(found.id)}/front.jpg?${found.step}`;
    get(run(found.id)).then((whole) => {
      if (shown !== found.id) return;
      curve = [...whole.curves, ...curve.filter((point) => !(point.step <= whole.curves.at(-1)?.step))];
      showPlots($("now-plots"), curve);
    }).catch(() => {});
  }
  showTabs(runs);
  $("now").hidden = false;
  $("now-title").textContent = found.prompt || found.id;
  $("now-state").textContent = STATES[found.state];
  $("now-state").className = `badge ${found.state}`;
  for (const id of ["now-pause", "now-change", "now-stop"]) $(id).disabled = found.state === "stopping";
  $("now-pause").textContent = paused ? "Go on" : "Pause";
  $("now-pause").className = paused ? "primary" : "";
  $("now-hint").textContent = paused ? "Its checkpoint is kept, and so is its place in the queue." : "";
  const metrics = found.metrics ?? {};
  if (found.step && found.metrics && (!curve.length || curve.at(-1).step < found.step)) curve.push({ step: found.step, ...metrics });
  if (curve.length > 600) curve = curve.filter((_, k) => k % 2 === 0);
  showPlots($("now-plots"), curve);
  if (found.steps) { $("now-progress").max = found.steps; $("now-progress").value = found.step; } else $("now-progress").removeAttribute("value");
  const figures = [["step", found.steps ? `${found.step} of ${found.steps}` : "–"], ...(paused ? [] : [["left", found.doing ? "–" : clock(found.left)]])];
  if (found.doing) figures.unshift(["now", found.doing + (found.share != null ? ` ${Math.round(100 * found.share)} %` : "")]);
  $("now-figures").replaceChildren(...figures.map(([name, value]) => make("span", {}, `${name} `, make("b", {}, value))));
  $("now-notes").replaceChildren(...(found.notes ?? []).map((note) => make("li", {}, note)));
  if (found.picture && found.picture !== lastPicture && !turning()) {
    lastPicture = found.picture;
    $("now-picture").src = `${run(found.id)}/live.jpg?${found.step}.${found.picture}`;
  }
  if (found.prior_picture && found.prior_picture !== lastPrior) {
    lastPrior = found.prior_picture;
    const [image, caption] = $("now-prior").children;
    image.src = `${run(found.id)}/prior.jpg?${found.step}.${lastPrior}`;
    caption.textContent = `What the prior saw at noise level t = ${found.prior_t.toFixed(2)}, and the clean picture that it answered.`;
    $("now-prior").hidden = false;
  }
}

async function act(id, what, body = {}) {
  try { return await (await ask(`${run(id)}/${what}`, "POST", body)).json(); }
  catch (error) { say(error.message); }
}
