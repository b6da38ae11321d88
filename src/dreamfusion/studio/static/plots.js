// Curves of a run's log: small, one for each figure that it has, with the values at their ends.
import { make } from "./common.js";

// ``low`` and ``high``: the ends of the axis, where they are not those of the values. t is drawn anew for each step: dots, no line.
const FIGURES = [
  { key: "residual_norm", name: "residual", about: "how much the prior still wants to change", low: 0 },
  { key: "similarity", name: "similarity", about: "how like the words the picture is" },
  { key: "t", name: "noise level t", about: "at which the prior was asked", low: 0, high: 1, dots: true },
  { key: "opacity", name: "opacity", about: "mean over the pictures", low: 0, high: 1 },
];
const WIDTH = 100, HEIGHT = 40;

const drawn = (tag, attributes, ...inside) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...inside);
  return element;
};

const short = (value) => String(Number(value.toPrecision(2)));

function plot({ key, name, about, low, high, dots }, points) {
  const values = points.filter((point) => point[key] != null);
  if (values.length < 2) return null;
  const all = values.map((point) => point[key]), first = values[0].step, last = values.at(-1).step;
  const bottom = low ?? Math.min(...all), top = Math.max(high ?? Math.max(...all), bottom + 1e-9);
  const at = (point) => `${(WIDTH * (point.step - first) / Math.max(last - first, 1)).toFixed(2)} ${(HEIGHT - 1 - (HEIGHT - 2) * (point[key] - bottom) / (top - bottom)).toFixed(2)}`;
  const path = dots ? values.map((point) => `M${at(point)}h0`).join("") : `M${values.map(at).join("L")}`;
  const label = `${name}, ${about}: from ${short(all[0])} at step ${first} to ${short(all.at(-1))} at step ${last}`;
  return make("figure", { class: "plot", "data-key": key, title: label },
    make("figcaption", {}, make("span", {}, name), make("b", {}, short(all.at(-1)))),
    make("div", {},
      drawn("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": label }, drawn("path", { d: path, class: dots ? "dots" : "line" })),
      make("small", { class: "top" }, short(top)), make("small", { class: "bottom" }, short(bottom))),
    make("small", { class: "steps" }, make("span", {}, `step ${first}`), make("span", {}, String(last))));
}

// Put the curves of the points {"step", …} into an element, in place of older ones.
export function showPlots(place, points) {
  place.replaceChildren(...FIGURES.map((figure) => plot(figure, points)).filter(Boolean));
  place.hidden = !place.children.length;
}
