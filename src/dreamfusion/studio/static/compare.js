// Two assets side by side, from the same camera.
import { assetOf } from "./asset.js";
import { $, make } from "./common.js";

const chosen = new Map();

export function compareBox(found) {
  const box = make("input", { type: "checkbox", checked: chosen.has(found.id), "aria-label": `Compare ${found.prompt}`, onchange: () => {
    if (box.checked) chosen.set(found.id, found); else chosen.delete(found.id);
    const [first] = chosen.keys();
    if (chosen.size > 2) {
      chosen.delete(first);
      for (const other of document.querySelectorAll(".compare input")) other.checked = chosen.has(other.dataset.id);
    }
    if (chosen.size === 2) open([...chosen.values()]);
  } });
  box.dataset.id = found.id;
  return make("label", { class: "compare" }, box, " compare");
}

function open(two) {
  const viewers = two.map((found) => assetOf(found));
  viewers.forEach((viewer, k) => viewer.addEventListener("camera-change", (event) => {
    const other = viewers[1 - k];
    if (event.detail.source !== "user-interaction" || !other.loaded) return;
    const { theta, phi } = viewer.getCameraOrbit(), { radius } = other.getCameraOrbit();
    other.cameraOrbit = `${theta}rad ${phi}rad ${radius}m`;
    other.fieldOfView = `${viewer.getFieldOfView()}deg`;
    other.jumpCameraToGoal();
  }));
  const rows = [["preset", (f) => f.preset], ["seed", (f) => f.seed], ["steps", (f) => f.steps], ["triangles", (f) => f.figures?.triangles?.toLocaleString()],
    ["silhouettes", (f) => f.figures?.iou?.toFixed(2)], ["seconds", (f) => f.cost && Math.round(f.cost.seconds)]];
  $("compare").replaceChildren(
    make("div", { class: "two" }, ...two.map((found, k) => make("section", {}, viewers[k], make("div", { class: "inside" },
      make("h3", { id: k === 0 ? "compare-title" : null }, found.prompt),
      make("p", { class: "figures" }, ...rows.filter(([, of]) => of(found) != null).map(([name, of]) => make("span", {}, `${name} `, make("b", {}, String(of(found)))))))))),
    make("div", { class: "inside buttons" }, make("button", { type: "button", onclick: () => $("compare").close() }, "Close")));
  $("compare").showModal();
}

$("compare").addEventListener("close", () => {
  $("compare").replaceChildren();
  chosen.clear();
  for (const box of document.querySelectorAll(".compare input")) box.checked = false;
});
