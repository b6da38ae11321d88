// One run, large; and the export of its asset.
import { assetOf } from "./asset.js";
import { $, STATES, ask, clock, get, make, run } from "./common.js";
import { again } from "./form.js";
import { looksOf } from "./looks.js";
import { showPlots } from "./plots.js";
import { openResume } from "./resume.js";
import { sceneOf } from "./scene.js";

let opened = null, openedLook = "";

export function openViewer(id, all) { opened = id; openedLook = ""; refreshViewer(all); $("viewer").showModal(); }

export function refreshViewer(all) {
  const found = all.find((one) => one.id === opened);
  if (!found) { $("viewer").close(); return; }
  const look = JSON.stringify([found.state, found.files, found.error]);
  if (look === openedLook) return;
  openedLook = look;
  const busy = ["running", "queued", "stopping"].includes(found.state), paused = found.state === "paused";
  const plots = make("div", { class: "plots", hidden: true });
  if (found.step > 0 || busy) get(run(found.id)).then((whole) => showPlots(plots, whole.curves)).catch(() => {});
  const scene = !busy && found.state !== "done" && found.step > 0; // it has a checkpoint that is newer than its asset
  const asset = found.files?.includes("asset.glb");
  const stage = scene ? sceneOf(found) : asset
    ? assetOf(found, { "auto-rotate": true })
    : make("div", { class: "stand" }, found.files?.includes("preview.png") ? make("img", { src: `${run(found.id)}/preview.png?${found.step}`, alt: "The scene from all sides" }) : "There is no picture yet.");
  const figures = found.figures ?? {}, cost = found.cost;
  const said = [["preset", found.preset], ["seed", found.seed], ["steps", `${found.step} of ${found.steps}`]];
  if (figures.triangles != null) said.push(["triangles", figures.triangles.toLocaleString()]);
  if (figures.pieces != null) said.push(["pieces", figures.pieces]);
  if (figures.iou != null) said.push(["silhouettes", figures.iou.toFixed(2)]);
  if (cost) said.push(["time", clock(cost.seconds)], ["energy", `${cost.wh.toFixed(2)} Wh${cost.energy.includes("estimate") ? " (estimate)" : ""}`]);
  if (cost?.cost >= 0.00005) said.push(["cost", `${cost.cost.toFixed(4)} ${cost.currency}`]);
  for (const change of found.changes ?? []) said.push([`from step ${change.step}`, Object.entries(change.settings).map(([name, value]) => `${name} = ${value}`).join(", ")]);
  const error = make("p", { class: "error", role: "alert" }, found.error ?? "");
  const attempt = async (work) => { error.textContent = ""; try { await work(); } catch (problem) { error.textContent = problem.message; } };
  $("viewer").replaceChildren(stage, make("div", { class: "inside" },
    make("div", { class: "row" }, make("h2", { id: "viewer-title" }, found.prompt || found.id), make("span", { class: `badge ${found.state}` }, STATES[found.state])),
    make("p", { class: "figures" }, ...said.map(([name, value]) => make("span", {}, `${name} `, make("b", {}, String(value))))),
    asset && !scene && looksOf(stage),
    plots,
    error,
    make("div", { class: "buttons" },
      asset && make("a", { class: "button primary", href: `${run(found.id)}/asset.glb`, download: `${found.id}.glb` }, "Download GLB"),
      asset && make("button", { type: "button", onclick: () => openExport(found) }, "Export …"),
      found.files?.includes("turntable.mp4") && make("a", { class: "button", href: `${run(found.id)}/turntable.mp4`, download: `${found.id}.mp4` }, "Film"),
      found.files?.includes("preview.png") && make("a", { class: "button", href: `${run(found.id)}/preview.png`, target: "_blank", rel: "noopener" }, "All sides"),
      (busy || paused) && make("button", { type: "button", onclick: () => attempt(() => ask(`${run(found.id)}/stop`, "POST", {})) }, found.state === "queued" ? "Take out of the queue" : "Stop"),
      busy && found.state !== "stopping" && make("button", { type: "button", onclick: () => attempt(() => ask(`${run(found.id)}/pause`, "POST", {})) }, "Pause"),
      !busy && found.state !== "done" && (found.steps > 0 || paused) && make("button", { type: "button", class: "primary", onclick: () => attempt(() => ask(`${run(found.id)}/resume`, "POST", {})) }, paused ? "Go on" : "Resume"),
      (busy ? found.state !== "stopping" : paused || found.step > 0) && make("button", { type: "button", onclick: () => attempt(() => openResume(found)) }, "Change …"),
      !busy && make("button", { type: "button", onclick: () => attempt(async () => { await again(found); $("viewer").close(); $("prompt").focus(); }) }, "Use these settings"),
      !busy && found.step > 0 && make("button", { type: "button", onclick: () => attempt(async () => { await again(found, true); $("viewer").close(); $("prompt").focus(); }) }, "Begin from this"),
      !busy && make("button", { type: "button", class: "danger", onclick: () => attempt(async () => {
        if (confirm(`Move “${found.prompt}” to the trash?`)) { await ask(run(found.id), "DELETE"); $("viewer").close(); }
      }) }, "Delete"),
      make("button", { type: "button", class: "close", "aria-label": "Close", title: "Close", onclick: () => $("viewer").close() }, "✕"))));
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
