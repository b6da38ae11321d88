// Turn an object: drag its picture, or use the arrow keys. One that forms turns by itself again after Escape.
import { ask, run } from "./common.js";

const STEP = 10, PAUSE = 30, PATIENCE = 1500;
let last = 0;
export const turning = () => performance.now() - last < PATIENCE;

export function turnable(id, image) {
  let azimuth = 0, elevation = 15, told = "", telling = false, watching = false, seen = "";

  const tell = async () => {
    if (telling) return;
    telling = true;
    while (told !== `${azimuth},${elevation}`) {
      told = `${azimuth},${elevation}`;
      try { await ask(`${run(id)}/look`, "POST", { azimuth, elevation }); } catch { /* it has ended */ }
    }
    telling = false;
  };

  // While somebody turns it, the newest picture is fetched again and again: the events come too seldom.
  const watch = async () => {
    if (watching) return;
    watching = true;
    while (turning() && image.isConnected) {
      try {
        const answer = await ask(`${run(id)}/live.jpg`), number = answer.headers.get("etag");
        if (number !== seen) {
          seen = number;
          const url = URL.createObjectURL(await answer.blob());
          image.onload = image.onerror = () => URL.revokeObjectURL(url);
          image.src = url;
        }
      } catch { /* there is no picture yet */ }
      await new Promise((done) => setTimeout(done, PAUSE));
    }
    watching = false;
  };

  const turn = (right, up) => {
    last = performance.now();
    azimuth = (azimuth + right + 540) % 360 - 180;
    elevation = Math.max(-80, Math.min(80, elevation + up));
    tell();
    watch();
  };

  steered(image, turn);
  image.addEventListener("keydown", (event) => { if (event.key === "Escape") ask(`${run(id)}/look`, "POST", {}).catch(() => {}); });
  return image;
}

// Call turn(right, up), in degrees, while somebody drags a picture or presses the arrow keys on it.
export function steered(image, turn) {
  let start = null;
  image.addEventListener("pointerdown", (event) => { start = [event.clientX, event.clientY]; image.setPointerCapture(event.pointerId); });
  image.addEventListener("pointermove", (event) => {
    if (!start) return;
    turn((start[0] - event.clientX) * 0.7, (event.clientY - start[1]) * 0.5);
    start = [event.clientX, event.clientY];
  });
  for (const name of ["pointerup", "pointercancel"]) image.addEventListener(name, () => { start = null; });
  image.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [STEP, 0], ArrowRight: [-STEP, 0], ArrowUp: [0, STEP], ArrowDown: [0, -STEP] };
    if (event.key in moves) { event.preventDefault(); turn(...moves[event.key]); }
  });
}
