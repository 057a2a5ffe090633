// Guides by their dosage, with 95 % intervals; of many control guides those with most cells.
const MOST_CONTROLS = 20, ROW = 18, LEFT = 128;

function drawAllGuides() {
  const holder = document.getElementById("guides");
  holder.replaceChildren();
  const most = controls.slice().sort((a, b) => G.cells[b] - G.cells[a]).slice(0, MOST_CONTROLS);
  const rows = G.names.map((_, g) => g).filter((g) => !G.control[g] || most.includes(g));
  if (!R.dosages) {
    holder.append(element("p", {}, "This fit is without dosages: guides act or do not."));
    return;
  }
  rows.sort((a, b) => (G.x_all[a] ?? R.zero) - (G.x_all[b] ?? R.zero));
  const height = rows.length * ROW + 60, width = Math.min(640, Math.max(280, holder.clientWidth || 520));
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `Dosages of ${rows.length} guides; the table below has the numbers`);
  const at = (g) => G.x_all[g] ?? R.zero, sd = (g) => G.sd[g] || 0;
  const low = Math.min(...rows.map((g) => at(g) - 1.96 * sd(g))), high = Math.max(...rows.map((g) => at(g) + 1.96 * sd(g)));
  const sx = scale(low, high, LEFT, width - 14), bottom = rows.length * ROW + 8;
  for (const [v, text] of xTicks(low, high)) {
    shape(svg, "line", { x1: sx(v), x2: sx(v), y1: 4, y2: bottom, stroke: "var(--line)", "stroke-width": 0.6 });
    label(svg, text, sx(v), bottom + 16, { "text-anchor": "middle" });
  }
  label(svg, R.words.dosage, (LEFT + width) / 2, bottom + 38, { "text-anchor": "middle" });
  rows.forEach((g, k) => {
    const y = k * ROW + 14, fill = G.control[g] ? "var(--gray)" : "var(--blue)";
    const name = G.names[g].length > 18 ? `${G.names[g].slice(0, 17)}…` : G.names[g];
    const mark = shape(svg, "g", {}, `${G.names[g]} (${G.targets[g]}), ${G.cells[g]} cells: ${number(at(g))}`);
    label(mark, name, LEFT - 8, y + 4, { "text-anchor": "end" });
    shape(mark, "line", { x1: sx(at(g) - 1.96 * sd(g)), x2: sx(at(g) + 1.96 * sd(g)), y1: y, y2: y, stroke: fill, "stroke-width": 1.5 });
    shape(mark, "circle", { cx: sx(at(g)), cy: y, r: 4, fill });
  });
  holder.append(svg);
}
