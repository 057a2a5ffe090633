// All features that were tested: a canvas, since there may be tens of thousands of points.
const canvas = document.getElementById("volcano"), tip = document.getElementById("tip");
const LOWEST_Q = 1e-300, NEAR = 12, NAMED = 10;
const QS = COLUMNS.qvalue.all(), EFFECTS = COLUMNS[R.effect].all();
const tested = [];
const heights = new Float64Array(N);
let most = 1e-9, top = 1;
for (let i = 0; i < N; i++) {
  if (!Number.isFinite(QS[i]) || !Number.isFinite(EFFECTS[i])) continue;
  tested.push(i);
  heights[i] = -Math.log10(Math.max(QS[i], LOWEST_Q));
  most = Math.max(most, Math.abs(EFFECTS[i]));
  top = Math.max(top, heights[i]);
}
let px = null, py = null, cells = null;

const groupOf = (i) => (isCalled(i) ? direction(i) : NO);
const fillOf = (i) => (isCalled(i) ? COLORS[direction(i)] || "green" : "gray");

function drawVolcano() {
  const width = canvas.clientWidth, height = canvas.clientHeight, ratio = window.devicePixelRatio || 1;
  if (!width) return;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const c = canvas.getContext("2d");
  c.scale(ratio, ratio);
  c.font = "12px system-ui, sans-serif";
  const box = { left: 52, right: width - 12, top: 10, bottom: height - 44 };
  const sx = scale(-1.06 * most, 1.06 * most, box.left, box.right), sy = scale(0, 1.06 * top, box.bottom, box.top);
  px = (i) => sx(EFFECTS[i]);
  py = (i) => sy(heights[i]);
  drawAxes(c, box, sx, sy, width);
  drawPoints(c);
  drawNames(c, box);
  if (picked >= 0 && Number.isFinite(q(picked)) && Number.isFinite(effect(picked))) {
    c.strokeStyle = color("ink");
    c.lineWidth = 2.5;
    c.beginPath();
    c.arc(px(picked), py(picked), 8, 0, 7);
    c.stroke();
  }
  cells = null;
}

// points by where they are, made when the pointer first comes
function fillCells() {
  cells = new Map();
  for (const i of tested) {
    const key = `${Math.floor(px(i) / NEAR)},${Math.floor(py(i) / NEAR)}`;
    if (!cells.has(key)) cells.set(key, []);
    cells.get(key).push(i);
  }
}

function drawAxes(c, box, sx, sy, width) {
  c.fillStyle = color("ink");
  c.strokeStyle = color("line");
  c.textAlign = "center";
  for (const v of ticks(-most, most, 7)) {
    c.fillText(number(v), sx(v), box.bottom + 16);
    line(c, sx(v), box.bottom, sx(v), box.bottom + 4);
  }
  c.fillText(R.words.effect, (box.left + box.right) / 2, box.bottom + 36, width - 60);
  c.textAlign = "right";
  for (const v of ticks(0, top, 6)) {
    c.fillText(number(v), box.left - 6, sy(v) + 4);
    line(c, box.left, sy(v), box.right, sy(v));
  }
  c.save();
  c.translate(13, (box.top + box.bottom) / 2);
  c.rotate(-Math.PI / 2);
  c.textAlign = "center";
  c.fillText("−log10 q", 0, 0);
  c.restore();
  c.strokeStyle = color("quiet");
  c.setLineDash([2, 3]);
  line(c, box.left, sy(-Math.log10(R.fdr)), box.right, sy(-Math.log10(R.fdr)));
  line(c, sx(0), box.top, sx(0), box.bottom);
  c.setLineDash([]);
  line(c, box.left, box.top, box.left, box.bottom);
  line(c, box.left, box.bottom, box.right, box.bottom);
}

function line(c, x1, y1, x2, y2) {
  c.lineWidth = 1;
  c.beginPath();
  c.moveTo(x1, y1);
  c.lineTo(x2, y2);
  c.stroke();
}

function drawPoints(c) {
  const many = tested.length > 2000;
  const fills = Object.fromEntries(["gray", ...Object.values(COLORS)].map((name) => [name, color(name)]));
  for (let k = tested.length - 1; k >= 0; k--) {
    const i = tested[k], called = isCalled(i);
    c.fillStyle = fills[fillOf(i)];
    c.globalAlpha = called ? 0.85 : many ? 0.35 : 0.7;
    c.beginPath();
    c.arc(px(i), py(i), called ? 3.4 : 2.1, 0, 7);
    c.fill();
  }
  c.globalAlpha = 1;
}

// Names of the clearest features, where there is room: off each other, and off the points.
function drawNames(c, box) {
  const taken = [];
  const covers = (x, y, width) =>
    tested.some((k) => px(k) > x - 4 && px(k) < x + width + 4 && py(k) > y - 13 && py(k) < y + 6);
  c.fillStyle = color("ink");
  for (const i of tested.filter(isCalled).slice(0, NAMED)) {
    const text = R.names[i].length > 18 ? `${R.names[i].slice(0, 17)}…` : R.names[i], width = c.measureText(text).width;
    const near = [[6, 4], [-6 - width, 4], [-width / 2, -8], [-width / 2, 17]];
    const far = [12, 24, 40].flatMap((d) => [[d, -d], [-d - width, -d], [d, d + 8], [-d - width, d + 8]]);
    for (const [dx, dy] of [...near, ...far]) {
      const x = px(i) + dx, y = py(i) + dy;
      const free = x > box.left && x + width < box.right && y > box.top + 8 && y < box.bottom
        && taken.every((t) => x > t.x + t.width + 3 || x + width + 3 < t.x || Math.abs(y - t.y) > 13)
        && !covers(x, y, width);
      if (!free) continue;
      if (far.some(([fx, fy]) => fx === dx && fy === dy)) {
        line(c, px(i), py(i), dx > 0 ? x - 1 : x + width + 1, dy > 0 ? y - 8 : y - 2);
      }
      c.textAlign = "left";
      c.fillText(text, x, y);
      taken.push({ x, y, width });
      break;
    }
  }
}

function nearest(event) {
  const rect = canvas.getBoundingClientRect(), x = event.clientX - rect.left, y = event.clientY - rect.top;
  let best = -1, least = NEAR * NEAR;
  if (!px) return best;
  if (!cells) fillCells();
  for (let a = -1; a <= 1; a++) {
    for (let b = -1; b <= 1; b++) {
      for (const i of cells.get(`${Math.floor(x / NEAR) + a},${Math.floor(y / NEAR) + b}`) || []) {
        const d = (px(i) - x) ** 2 + (py(i) - y) ** 2 - (isCalled(i) ? 4 : 0);
        if (d < least) [best, least] = [i, d];
      }
    }
  }
  return best;
}

canvas.addEventListener("mousemove", (event) => {
  const i = nearest(event);
  tip.hidden = i < 0;
  if (i < 0) return;
  tip.textContent = `${R.names[i]}: ${number(effect(i))}, q = ${number(q(i), 2)}`;
  const left = px(i) > canvas.clientWidth / 2;
  tip.style.left = left ? "auto" : `${px(i) + 12}px`;
  tip.style.right = left ? `${canvas.clientWidth - px(i) + 12}px` : "auto";
  tip.style.top = `${Math.max(0, py(i) - 14)}px`;
});
canvas.addEventListener("mouseleave", () => (tip.hidden = true));
canvas.addEventListener("click", (event) => {
  const i = nearest(event);
  if (i >= 0) pick(i);
});
canvas.addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const called = tested.filter(isCalled), some = called.length ? called : tested;
  const at = some.indexOf(picked);
  pick(some[Math.min(some.length - 1, Math.max(0, at < 0 ? 0 : at + step))]);
});

function volcanoLegend() {
  const when = R.zero === null ? "on knock-down" : "with the dose";
  const words = { down: `falls ${when}`, up: `rises ${when}`, mixed: "mixed", [NO]: NO };
  const counts = {};
  for (const i of tested) counts[groupOf(i)] = (counts[groupOf(i)] || 0) + 1;
  legend("volcano-legend", Object.keys(words).filter((k) => counts[k]).map((k) => [`${words[k]} (${counts[k].toLocaleString("en")})`, COLORS[k] || "gray"]));
}
