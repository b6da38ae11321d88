// A finished asset, which the mouse and the arrow keys turn.
import { make, run } from "./common.js";

export function assetOf(found, attributes = {}) {
  const viewer = make("model-viewer", { src: `${run(found.id)}/asset.glb?${found.step}`, alt: `The asset: ${found.prompt}`, "camera-controls": true,
    "shadow-intensity": "0.6", "interaction-prompt": "none", "environment-image": "neutral", ...attributes });
  // model-viewer hides its own bar only where the parts of the progress add up to exactly 1.
  viewer.addEventListener("load", () => viewer.classList.add("loaded"));
  return viewer;
}
