// What all parts of the page use: elements, requests, numbers.
export const $ = (id) => document.getElementById(id);
export const make = (tag, attributes = {}, ...inside) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...inside.filter((part) => part != null && part !== false));
  return element;
};

export async function ask(path, method = "GET", body) {
  const answer = await fetch(path, {
    method,
    headers: body === undefined ? {} : { "Content-Type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (!answer.ok) {
    let said = `${answer.status} ${answer.statusText}`;
    try { said = (await answer.json()).detail || said; } catch { /* not JSON */ }
    throw Object.assign(new Error(said), { status: answer.status });
  }
  return answer;
}
export const get = async (path) => (await ask(path)).json();
export const run = (id) => `/runs/${encodeURIComponent(id)}`;
export const clock = (seconds) => {
  if (seconds == null || !isFinite(seconds)) return "–:––";
  const whole = Math.round(seconds), hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
  const two = (n) => String(n).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
};
export const later = (wait, act) => { let timer; return (...given) => { clearTimeout(timer); timer = setTimeout(() => act(...given), wait); }; };
export const STATES = { queued: "in the queue", running: "in progress", stopping: "stopping", paused: "paused", stopped: "stopped", done: "done", failed: "failed", broken: "broken" };
export const say = (text) => { $("status").textContent = text; };
