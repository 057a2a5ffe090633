// The curve of one feature with its band, the guides around it, and what it says in words.
const G = R.guides;
const BESIDE = 0.4;
let WIDTH = 560, HEIGHT = 360, INSIDE = {};
let picked = -1;

// as wide as its place, so that letters keep their size
function measure() {
  WIDTH = Math.min(640, Math.max(280, document.getElementById("curve").clientWidth || 560));
  HEIGHT = Math.round(Math.max(280, 0.62 * WIDTH));
  INSIDE = { left: 54, right: WIDTH - (R.counts ? 58 : 14), top: 12, bottom: HEIGHT - 46 };
}

const controls = G.names.map((_, g) => g).filter((g) => G.control[g]);
// without dosages NTC guides stand beside acting ones, and these beside inert ones if there are any
const targeting = G.names.map((_, g) => g).filter((g) => !G.control[g]);
const BY_PLACE = [["NTC guides", controls], ["acting guides", targeting.filter((g) => !G.inert[g])],
  ["inert guides", targeting.filter((g) => G.inert[g])]].filter(([, some], at) => at < 2 || some.length);
function places() {
  if (R.dosages) {
    const zero = (v) => (v === null ? R.zero : v);
    return { x: G.x.map(zero), all: G.x_all.map(zero), sd: G.sd.map((v) => v || 0) };
  }
  const x = new Array(G.names.length);
  BY_PLACE.forEach(([, some], at) => {
    some.forEach((g, k) => (x[g] = at + (some.length > 1 ? (k / (some.length - 1) - 0.5) * 1.4 * BESIDE : 0)));
  });
  return { x, all: x, sd: x.map(() => 0) };
}
const PLACES = places();

function pointsOf(i) {
  const v = guidesOf(i), n = G.names.length;
  if (v === null) return [];
  const out = [];
  for (let g = 0; g < n; g++) {
    if (!Number.isFinite(v[g]) || PLACES.x[g] === null) continue;
    // the mean of all cells is there only where some guide does not act in some of them
    const all = v.length > n + 2 * G.bars ? v[n + 2 * G.bars + g] : v[g];
    const [low, high] = g < G.bars ? [v[n + g], v[n + G.bars + g]] : [NaN, NaN];
    out.push({ g, all, mean: v[g], low, high, x: PLACES.x[g], sd: PLACES.sd[g] });
  }
  return out;
}

function rangeOf(curve, points, i) {
  const n = R.curves.x.length;
  const seen = [level[i], ...points.map((p) => p.mean), ...points.filter((p) => G.escaping[p.g] > 0).map((p) => p.all)];
  if (curve) for (let k = n; k < 3 * n; k++) seen.push(curve[k]);
  // a few guides with few cells have intervals that would leave no room for the rest
  const sorted = (name) => points.map((p) => p[name]).filter(Number.isFinite).sort((a, b) => a - b);
  const lows = sorted("low"), highs = sorted("high");
  if (lows.length) seen.push(lows[Math.floor(0.05 * lows.length)], highs[Math.ceil(0.95 * highs.length) - 1]);
  const known = seen.filter(Number.isFinite);
  let low = Math.min(...known), high = Math.max(...known);
  if (!known.length) [low, high] = [0, 1];
  const room = 0.06 * (high - low || Math.abs(high) || 1);
  if (R.counts) return [0, high + room];
  if (R.shares) return [Math.max(0, low - room), Math.min(1, high + room)];
  return [low - room, high + room];
}

function xRange() {
  if (!R.dosages) return [-0.7, BY_PLACE.length - 0.3];
  const seen = [...PLACES.x, ...PLACES.all, ...R.curves.x].filter((v) => v !== null);
  const low = Math.min(...seen), high = Math.max(...seen), room = 0.04 * (high - low || 1);
  return [low - room, high + room];
}

function xTicks(low, high) {
  if (!R.dosages) return BY_PLACE.map(([name], at) => [at, name]);
  const usual = ticks(low, high, WIDTH / 70).filter((v) => R.zero === null || v > R.zero + 0.4).map((v) => [v, number(v)]);
  return R.zero === null ? usual : [[R.zero, "0"], ...usual];
}

function drawCurve(i) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `${R.names[i]}: ${inWords(i)}`);
  const curve = curveOf(i), points = pointsOf(i);
  const [x0, x1] = xRange(), [y0, y1] = rangeOf(curve, points, i);
  const sx = scale(x0, x1, INSIDE.left, INSIDE.right), sy = scale(y0, y1, INSIDE.bottom, INSIDE.top);
  const category = COLUMNS.category ? COLUMNS.category.at(i) : "";
  frame(svg, INSIDE, xTicks(x0, x1), ticks(y0, y1, 5), sx, sy, R.dosages ? R.words.dosage : "",
    category ? `${R.words.observed}: ${category}` : R.words.observed);
  foldChanges(svg, i, y1, sy);
  const clip = `clip-${i}`;
  const box = shape(shape(svg, "clipPath", { id: clip }), "rect", {});
  for (const [k, v] of Object.entries({ x: INSIDE.left, y: INSIDE.top, width: INSIDE.right - INSIDE.left, height: INSIDE.bottom - INSIDE.top })) box.setAttribute(k, v);
  const inside = shape(svg, "g", { "clip-path": `url(#${clip})` });
  if (Number.isFinite(level[i])) {
    shape(inside, "line", { x1: INSIDE.left, x2: INSIDE.right, y1: sy(level[i]), y2: sy(level[i]), stroke: "var(--gray)", "stroke-dasharray": "2 3" });
  }
  if (curve) drawBand(inside, curve, sx, sy);
  drawGuides(inside, points, sx, sy);
  drawEc50(svg, i, sx);
  return svg;
}

function drawBand(g, curve, sx, sy) {
  const n = R.curves.x.length;
  const xs = n > 1 ? R.curves.x : [1 - BESIDE, 1 + BESIDE];
  const at = (part, k) => curve[part * n + (n > 1 ? k : 0)];
  const line = (part) => xs.map((x, k) => `${sx(x).toFixed(1)} ${sy(at(part, k)).toFixed(1)}`);
  shape(g, "path", { d: `M${line(1).join("L")}L${line(2).reverse().join("L")}Z`, fill: "var(--band)" });
  shape(g, "path", { d: `M${line(0).join("L")}`, fill: "none", stroke: "var(--ink)", "stroke-width": 2 });
}

function drawGuides(g, points, sx, sy) {
  for (const p of [...points].sort((a, b) => G.control[b.g] - G.control[a.g])) {
    const control = G.control[p.g], fill = control ? "var(--gray)" : "var(--blue)";
    const ends = Number.isFinite(p.low) ? ` (${number(p.low)} to ${number(p.high)})` : "";
    const mark = shape(g, "g", {}, `${G.names[p.g]} (${G.targets[p.g]}), ${G.cells[p.g]} cells: ${number(p.mean)}${ends}`);
    if (p.g >= G.bars) {
      shape(mark, "circle", { cx: sx(p.x), cy: sy(p.mean), r: 2.6, fill, opacity: 0.5 });
      continue;
    }
    shape(mark, "path", { d: `M${sx(p.x)} ${sy(p.low)}V${sy(p.high)}M${sx(p.x - 1.96 * p.sd)} ${sy(p.mean)}H${sx(p.x + 1.96 * p.sd)}`, stroke: fill, "stroke-width": 1.1, fill: "none" });
    if (G.escaping[p.g] > 0) {
      const x = sx(PLACES.all[p.g]);
      shape(mark, "line", { x1: x, y1: sy(p.all), x2: sx(p.x), y2: sy(p.mean), stroke: fill, "stroke-dasharray": "2 2" });
      shape(mark, "circle", { cx: x, cy: sy(p.all), r: 3.6, fill: "none", stroke: fill });
    }
    shape(mark, "circle", { cx: sx(p.x), cy: sy(p.mean), r: 4.2, fill, stroke: "var(--card)", "stroke-width": 0.8 });
  }
}

// log2 fold changes against NTC on the right, for counts
function foldChanges(svg, i, top, sy) {
  if (!R.counts || !(level[i] > 0)) return;
  const highest = Math.log2(top / level[i]), lowest = Math.max(highest - 7, -6);
  let shown = [];
  for (const step of [0.25, 0.5, 1, 2]) {
    shown = [];
    let last = Infinity;
    for (let k = Math.floor(highest / step); k * step >= lowest; k--) {
      const y = sy(level[i] * 2 ** (k * step));
      if (INSIDE.bottom - y < 10 && k !== 0) break;
      shown.push([k * step, y]);
      last = Math.min(last, shown.length > 1 ? y - shown.at(-2)[1] : Infinity);
    }
    if (last >= 16) break;
  }
  let before = -Infinity;
  for (const [v, y] of shown) {
    if (y - before < 14) continue;
    before = y;
    shape(svg, "line", { x1: INSIDE.right, x2: INSIDE.right + 4, y1: y, y2: y, stroke: "var(--quiet)" });
    label(svg, number(v), INSIDE.right + 7, y + 4);
  }
  shape(svg, "line", { x1: INSIDE.right, x2: INSIDE.right, y1: INSIDE.top, y2: INSIDE.bottom, stroke: "var(--quiet)" });
  const y = (INSIDE.top + INSIDE.bottom) / 2;
  label(svg, "log2 fold change", WIDTH - 10, y, { "text-anchor": "middle", transform: `rotate(90 ${WIDTH - 10} ${y})` });
}

function drawEc50(svg, i, sx) {
  const v = ec50.log2_ec50[i];
  if (!Number.isFinite(v) || !isCalled(i)) return;
  const edge = (x) => Math.min(INSIDE.right, Math.max(INSIDE.left, sx(x))), y = INSIDE.bottom - 5;
  const mark = shape(svg, "g", {}, `EC50: log2 ${number(v)} (${number(ec50.log2_ec50_q025[i])} to ${number(ec50.log2_ec50_q975[i])})`);
  shape(mark, "line", { x1: edge(ec50.log2_ec50_q025[i]), x2: edge(ec50.log2_ec50_q975[i]), y1: y, y2: y, stroke: "var(--orange)", "stroke-width": 4, opacity: 0.55 });
  shape(mark, "line", { x1: sx(v), x2: sx(v), y1: y - 6, y2: y + 5, stroke: "var(--orange)", "stroke-width": 2.5 });
}

function inWords(i) {
  const at = (name) => (COLUMNS[name] ? COLUMNS[name].at(i) : "");
  const told = [];
  if (!Number.isFinite(q(i))) {
    told.push("no q-value");
  } else if (isCalled(i)) {
    const way = at("on_knockdown"), of = R.gene ? ` of ${R.gene}` : "";
    const said = { down: `falls on knock-down${of}`, up: `rises on knock-down${of}`, mixed: "moves both ways" }[way];
    told.push(said || (direction(i) === "down" ? "falls" : "rises"));
    if (at("class")) told.push(at("class").replaceAll("_", " "));
    told.push(`q = ${number(q(i), 2)}`, `${at("confidence") || "no"} confidence`);
  } else {
    told.push(`no response is called (q = ${number(q(i), 2)})`);
  }
  if (Number.isFinite(effect(i))) told.push(`${R.words.effect}: ${interval(R.effect, i)}`);
  if (isCalled(i) && at("ec50")) told.push(`log2 EC50: ${minus(at("ec50"))}`);
  return told.join("; ") + (noteOf(i) ? `. Note: ${noteOf(i)}` : "");
}

// why a feature has not all of its numbers, and what to be careful about
function noteOf(i) {
  const status = COLUMNS.status.at(i), note = COLUMNS.note ? COLUMNS.note.at(i) : "";
  return status === "converged" ? note : [status.replaceAll("_", " "), note].filter(Boolean).join(": ");
}

function showCurve(i) {
  picked = i;
  document.getElementById("curve-title").textContent = R.names[i];
  const text = inWords(i);
  document.getElementById("curve-words").textContent = text.charAt(0).toUpperCase() + text.slice(1) + ".";
  measure();
  const curve = curveOf(i), points = pointsOf(i), holder = document.getElementById("curve");
  holder.replaceChildren();
  if (curve || points.length) {
    holder.append(drawCurve(i));
    const entries = curve ? [[R.dosages ? "fitted curve, 95 % band" : "level of acting guides, 95 % band", "ink", "bar"]] : [];
    if (points.length) entries.push(["targeting guides", "blue"], ["NTC guides", "gray"]);
    if (points.some((p) => G.escaping[p.g] > 0)) entries.push(["with cells it does not act in", "blue", "open"]);
    if (isCalled(i) && Number.isFinite(ec50.log2_ec50[i])) entries.push(["EC50, 95 % interval", "orange", "bar"]);
    legend("curve-legend", entries);
  } else {
    legend("curve-legend", []);
    holder.append(element("p", { class: "hint" }, "There is no curve: it was not fitted."));
  }
}

function saveCurve() {
  const svg = document.querySelector("#curve svg");
  if (!svg) return;
  const copy = svg.cloneNode(true);
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  copy.setAttribute("font-family", "sans-serif");
  copy.setAttribute("font-size", "12");
  for (const node of copy.querySelectorAll("*")) {
    if (node.tagName === "text") node.setAttribute("fill", color("ink"));
    for (const { name, value } of [...node.attributes]) {
      if (value.startsWith("var(--")) node.setAttribute(name, color(value.slice(6, -1)));
    }
  }
  save(`${R.names[picked].replace(/[^\w.-]+/g, "_")}.svg`, new XMLSerializer().serializeToString(copy), "image/svg+xml");
}
