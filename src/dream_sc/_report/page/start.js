// What belongs together is picked together: the point, the row and the curve.
function pick(i) {
  showCurve(i);
  drawVolcano();
  drawRows();
}

function step(by) {
  const at = shown.indexOf(picked), to = shown[at + by];
  if (to === undefined) return;
  page = Math.floor((at + by) / Number(control("rows").value));
  pick(to);
}

document.getElementById("app").hidden = false;
document.getElementById("previous").addEventListener("click", () => step(-1));
document.getElementById("next").addEventListener("click", () => step(1));
document.getElementById("save-curve").addEventListener("click", saveCurve);
drawHead();
if (tested.some(isCalled)) control("which").value = "called";
filter();
if (N) {
  showCurve(shown.length ? shown[0] : 0);
  drawRows();
}
// the curve and the table are on the screen before the figures that take longer
requestAnimationFrame(() => setTimeout(() => {
  drawVolcano();
  volcanoLegend();
  drawAllGuides();
  showContext(0);
  performance.mark("drawn");
}));
let width = innerWidth;
addEventListener("resize", () => {
  drawVolcano();
  if (innerWidth === width) return;
  width = innerWidth;
  showCurve(picked);
  drawAllGuides();
  showContext(contextShown);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawVolcano);
// a canvas keeps the colours it was drawn in, so that it is drawn again for paper
for (const [when, there] of [["beforeprint", true], ["afterprint", false]]) {
  addEventListener(when, () => {
    document.documentElement.classList.toggle("on-paper", there);
    drawVolcano();
  });
}
