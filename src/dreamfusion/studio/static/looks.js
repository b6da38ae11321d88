// How a finished asset is drawn: as it was made, as clay, by its normals; and its triangles on top.
import { make } from "./common.js";

const LOOKS = { colour: "Colour", clay: "Clay", normals: "Normals" };
const MAPS = ["map", "normalMap", "roughnessMap", "metalnessMap", "aoMap", "emissiveMap"];

// model-viewer keeps its three.js scene under a symbol. Without it (another version) there are no looks.
function sceneOf(viewer) {
  const key = Object.getOwnPropertySymbols(viewer).find((symbol) => symbol.description === "scene");
  return key && viewer[key];
}

// A copy of a material whose last line of shader says the colour, after light and tone mapping.
function painted(material, name, colour) {
  const copy = material.clone();
  copy.onBeforeCompile = (shader) => {
    shader.fragmentShader = `uniform mat3 normalMatrix;\n${shader.fragmentShader.replace("#include <dithering_fragment>", `gl_FragColor = vec4(${colour}, 1.0);`)}`;
  };
  copy.customProgramCacheKey = () => name;
  return copy;
}

function clay(material) {
  const copy = material.clone();
  for (const map of MAPS) copy[map] = null;
  copy.vertexColors = false;
  copy.color?.setRGB(0.4, 0.4, 0.4);
  Object.assign(copy, { roughness: 0.9, metalness: 0 });
  return copy;
}

const drawn = {
  colour: (material) => material.clone(),
  clay,
  // The normal in the object's own axes: normalMatrix turns those to the camera's, so its transpose turns back.
  normals: (material) => painted(material, "normals", "normalize(normal * normalMatrix) * 0.5 + 0.5"),
};

export function looksOf(viewer) {
  let look = "colour", lines = false, meshes = [], made = [];
  const row = make("div", { class: "buttons looks", role: "group", "aria-label": "How the asset is drawn", hidden: true });
  const buttons = Object.entries(LOOKS).map(([name, text]) => make("button", { type: "button", onclick: () => { look = name; draw(); } }, text));
  const wires = make("button", { type: "button", onclick: () => { lines = !lines; draw(); } });

  function draw() {
    for (const thing of made) { thing.removeFromParent?.(); thing.dispose?.(); }
    made = [];
    for (const [mesh, material] of meshes) {
      mesh.material = material;
      if (look === "colour" && !lines) continue;
      mesh.material = drawn[look](material);
      made.push(mesh.material);
      if (!lines) continue;
      Object.assign(mesh.material, { polygonOffset: true, polygonOffsetFactor: 1, polygonOffsetUnits: 1 }); // so that no line is half hidden
      const wire = painted(material, "wires", "vec3(0.08, 0.05, 0.2)");
      wire.wireframe = true;
      const grid = new mesh.constructor(mesh.geometry, wire);
      mesh.add(grid);
      made.push(grid, wire);
    }
    Object.keys(LOOKS).forEach((name, k) => buttons[k].setAttribute("aria-pressed", String(name === look)));
    wires.setAttribute("aria-pressed", String(lines));
    sceneOf(viewer)?.queueRender();
  }

  viewer.addEventListener("load", () => {
    meshes = [];
    let triangles = 0;
    sceneOf(viewer)?.traverse((thing) => {
      // The ground's shadow is a mesh too, but has no light of its own.
      if (!thing.isMesh || !thing.material.isMeshStandardMaterial) return;
      meshes.push([thing, thing.material]);
      triangles += (thing.geometry.index ?? thing.geometry.attributes.position).count / 3;
    });
    made = [];
    row.hidden = !meshes.length;
    wires.textContent = `Wireframe, ${triangles.toLocaleString()} triangles`;
    draw();
  });
  row.append(...buttons, wires);
  return row;
}
