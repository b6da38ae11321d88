// The run in progress: its picture, figures and curve.
import { $, STATES, ask, clock, get, make, run, say } from "./common.js";
import { turnable, turning } from "./turn.js";

let shown = null, curve = [], lastPicture = -1, lastPrior = -1;

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
      turnable(id, make("img", { id: "now-picture", alt: "The object as it is now. Drag it or press the arrow keys to turn it; Escape lets it turn by itself.", src: "/static/icon.svg", tabindex: "0", draggable: "false" })),
      make("div", {},
        make("progress", { id: "now-progress", max: 1, value: 0, "aria-label": "Steps done" }),
        make("p", { class: "figures", id: "now-figures" }),
        curveOf("now-curve", "Residual of the score, over the steps"),
        make("p", { class: "hint" }, "The residual of the score: how much the prior still wants to change."),
        make("figure", { id: "now-prior", hidden: true },
          make("img", { alt: "The noisy picture that the prior was shown, and the clean picture that it answered" }), make("figcaption", { class: "hint" })),
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

export async function showNow(found) {
  if (!found) { $("now").hidden = true; shown = null; return; }
  if (shown !== found.id) {
    shown = found.id; curve = []; lastPicture = lastPrior = -1;
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
  if (found.picture && found.picture !== lastPicture && !turning()) {
    lastPicture = found.picture;
    $("now-picture").src = `${run(found.id)}/live.jpg?${found.picture}`;
  }
  if (found.prior_picture && found.prior_picture !== lastPrior) {
    lastPrior = found.prior_picture;
    const [image, caption] = $("now-prior").children;
    image.src = `${run(found.id)}/prior.jpg?${lastPrior}`;
    caption.textContent = `What the prior saw at noise level t = ${found.prior_t.toFixed(2)}, and the clean picture that it answered.`;
    $("now-prior").hidden = false;
  }
}

async function act(id, what, body = {}) {
  try { return await (await ask(`${run(id)}/${what}`, "POST", body)).json(); }
  catch (error) { say(error.message); }
}
