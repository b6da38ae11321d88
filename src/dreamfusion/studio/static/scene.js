// The scene of a run that does not go on now, drawn from its checkpoint: drag it, or use the arrow keys.
import { ask, make, run } from "./common.js";
import { steered } from "./turn.js";

const SMALL = 160, LARGE = 384, REST = 250, AGAIN = 400;

// The picture, and a line that says what is wrong. Pictures are asked for one after the other: a small one while it is turned,
// a large one when it rests.
export function sceneOf(found) {
  const image = make("img", { id: "scene-picture", class: "turns", width: LARGE, height: LARGE, tabindex: "0", draggable: "false",
    alt: `The scene of ${found.prompt} after step ${found.step}. Drag it or press the arrow keys to turn it.`,
    src: found.files?.includes("preview.png") ? `${run(found.id)}/front.jpg?${found.step}` : "/static/icon.svg" });
  const said = make("p", { class: "hint", role: "status" }, "Drawing the scene …");
  let azimuth = 0, elevation = 15, moved = -REST, drawn = "", drawing = false;

  const draw = async () => {
    if (drawing) return;
    drawing = true;
    for (;;) {
      const rested = performance.now() - moved >= REST, size = rested ? LARGE : SMALL;
      const wanted = `azimuth=${azimuth}&elevation=${elevation}&size=${size}`;
      if (wanted !== drawn) {
        try {
          const url = URL.createObjectURL(await (await ask(`${run(found.id)}/scene.jpg?${wanted}`)).blob());
          image.onload = image.onerror = () => URL.revokeObjectURL(url);
          image.src = url;
          drawn = wanted;
          said.textContent = "Drag it, or press the arrow keys on it, to turn it.";
        } catch (problem) {
          if (problem.status !== 409) { said.textContent = problem.message; break; }
          await new Promise((done) => setTimeout(done, AGAIN)); // another page's picture is being drawn
        }
      } else if (rested) break;
      else await new Promise((done) => setTimeout(done, REST / 5));
      if (!image.isConnected) break;
    }
    drawing = false;
  };

  steered(image, (right, up) => {
    moved = performance.now();
    azimuth = (azimuth + right + 540) % 360 - 180;
    elevation = Math.max(-80, Math.min(80, elevation + up));
    draw();
  });
  draw();
  return make("div", { class: "stand" }, image, said);
}
