// Elements, scales and ticks that all figures share. Names of features are set as text, never as markup.
function element(name, attributes = {}, text = null) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== null) node.textContent = text;
  return node;
}

function shape(parent, name, attributes, title = null) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (title !== null) shape(node, "title", {}).textContent = title;
  parent.append(node);
  return node;
}

function label(parent, text, x, y, attributes = {}) {
  const node = shape(parent, "text", { x, y, ...attributes });
  node.textContent = text;
  return node;
}

function ticks(low, high, most) {
  const raw = (high - low) / Math.max(1, most);
  const unit = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((m) => m * unit >= raw * 0.999) * unit;
  const out = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) out.push(Number((k * step).toPrecision(12)));
  return out;
}

const scale = (from, to, start, end) => (v) => start + ((v - from) / (to - from || 1)) * (end - start);
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const COLORS = { down: "blue", up: "orange", mixed: "green" };
const NO = "not called";

function legend(id, entries) {
  const list = document.getElementById(id);
  list.replaceChildren();
  for (const [text, fill, kind] of entries) {
    const item = element("li"), mark = element("i", { class: kind || "" });
    mark.style.background = `var(--${fill})`;
    item.append(mark, text);
    list.append(item);
  }
}

function frame(svg, box, xs, ys, sx, sy, xlabel, ylabel) {
  for (const v of ys) {
    shape(svg, "line", { x1: box.left, x2: box.right, y1: sy(v), y2: sy(v), stroke: "var(--line)", "stroke-width": 0.6 });
    label(svg, number(v), box.left - 6, sy(v) + 4, { "text-anchor": "end" });
  }
  for (const [v, text] of xs) {
    shape(svg, "line", { x1: sx(v), x2: sx(v), y1: box.bottom, y2: box.bottom + 4, stroke: "var(--quiet)" });
    label(svg, text, sx(v), box.bottom + 17, { "text-anchor": "middle" });
  }
  shape(svg, "path", { d: `M${box.left} ${box.top}V${box.bottom}H${box.right}`, fill: "none", stroke: "var(--quiet)" });
  label(svg, xlabel, (box.left + box.right) / 2, box.bottom + 36, { "text-anchor": "middle" });
  const y = (box.top + box.bottom) / 2;
  label(svg, ylabel, 12, y, { "text-anchor": "middle", transform: `rotate(-90 12 ${y})` });
}
