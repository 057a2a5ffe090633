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
volcanoLegend();
if (tested.some(isCalled)) control("which").value = "called";
filter();
drawAllGuides();
if (N) pick(shown.length ? shown[0] : 0);
let width = innerWidth;
addEventListener("resize", () => {
  drawVolcano();
  if (innerWidth === width) return;
  width = innerWidth;
  showCurve(picked);
  drawAllGuides();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawVolcano);
// a canvas keeps the colours it was drawn in, so that it is drawn again for paper
for (const [when, there] of [["beforeprint", true], ["afterprint", false]]) {
  addEventListener(when, () => {
    document.documentElement.classList.toggle("on-paper", there);
    drawVolcano();
  });
}
