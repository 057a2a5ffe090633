// Two contexts: both curves of the feature whose row is clicked, with the guides at their dosages in each.
const PAIR = ["blue", "orange"];

function drawContexts(k) {
  const row = R.contexts.rows[k], holder = document.getElementById("contexts-curves");
  const width = Math.min(640, Math.max(280, holder.clientWidth || 520)), height = Math.round(Math.max(260, 0.6 * width));
  const box = { left: 54, right: width - 14, top: 12, bottom: height - 46 };
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  for (const [name, value] of [["viewBox", `0 0 ${width} ${height}`], ["role", "img"]]) svg.setAttribute(name, value);
  svg.setAttribute("aria-label", `${row.name} in ${row.contexts.join(" and ")}; the row of the table has the numbers`);
  const known = (values) => values.filter((v) => v !== null);
  const xs = row.parts.flatMap((p) => known([...p.curve[0], ...p.guides[0]]));
  // the ends of a few wide intervals of guides would leave no room for the rest
  const ys = row.parts.flatMap((p) => known([...p.curve[2], ...p.curve[3], ...p.guides[2]])).concat(0);
  const room = (values) => 0.05 * (Math.max(...values) - Math.min(...values) || 1);
  const [x0, x1] = [Math.min(...xs) - room(xs), Math.max(...xs) + room(xs)];
  const [y0, y1] = [Math.min(...ys) - room(ys), Math.max(...ys) + room(ys)];
  const sx = scale(x0, x1, box.left, box.right), sy = scale(y0, y1, box.bottom, box.top);
  const marks = ticks(x0, x1, width / 70).map((v) => [v, number(v)]);
  frame(svg, box, marks, ticks(y0, y1, 5), sx, sy, R.words.dosage, R.contexts.change);
  const clip = shape(shape(svg, "clipPath", { id: "contexts-clip" }), "rect", { x: box.left, y: box.top, width: box.right - box.left, height: box.bottom - box.top });
  clip.parentNode.setAttribute("clipPathUnits", "userSpaceOnUse");
  const inside = shape(svg, "g", { "clip-path": "url(#contexts-clip)" });
  shape(inside, "line", { x1: box.left, x2: box.right, y1: sy(0), y2: sy(0), stroke: "var(--gray)", "stroke-dasharray": "2 3" });
  row.parts.forEach((part, c) => drawContext(inside, part, PAIR[c], sx, sy));
  holder.replaceChildren(svg);
  document.getElementById("contexts-title").textContent = row.name;
  legend("contexts-legend", row.contexts.map((name, c) => [c ? name : `${name} (reference)`, PAIR[c], "bar"]));
  for (const other of document.querySelectorAll("#contexts-table tbody tr")) {
    other.classList.toggle("picked", Number(other.dataset.row) === k);
  }
}

function drawContext(g, part, fill, sx, sy) {
  const [x, middle, lower, upper] = part.curve, stroke = `var(--${fill})`;
  const line = (values) => x.map((v, k) => `${sx(v).toFixed(1)} ${sy(values[k]).toFixed(1)}`);
  if (x.length) {
    shape(g, "path", { d: `M${line(lower).join("L")}L${line(upper).reverse().join("L")}Z`, fill: stroke, opacity: 0.18 });
    shape(g, "path", { d: `M${line(middle).join("L")}`, fill: "none", stroke, "stroke-width": 2 });
  }
  const [at, sd, change, low, high] = part.guides;
  part.names.forEach((name, k) => {
    if (at[k] === null || change[k] === null) return;
    const mark = shape(g, "g", {}, `${name}: ${number(change[k])} (${number(low[k])} to ${number(high[k])})`);
    const wide = 1.96 * (sd[k] || 0);
    shape(mark, "path", { d: `M${sx(at[k])} ${sy(low[k])}V${sy(high[k])}M${sx(at[k] - wide)} ${sy(change[k])}H${sx(at[k] + wide)}`, stroke, "stroke-width": 1, fill: "none", opacity: 0.7 });
    shape(mark, "circle", { cx: sx(at[k]), cy: sy(change[k]), r: 3.6, fill: stroke, stroke: "var(--card)", "stroke-width": 0.8 });
  });
}

let contextShown = 0;
function showContext(k) {
  contextShown = k;
  if (R.contexts && R.contexts.rows.length) drawContexts(k);
}
if (R.contexts) {
  document.querySelector("#contexts-table tbody").addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    if (row) showContext(Number(row.dataset.row));
  });
}
