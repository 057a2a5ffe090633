// The table: searched, sorted, a page at a time; the same rows can be saved as text.
const HEAD = [{ name: "", head: R.words.feature }, ...R.columns.filter((c) => c.head)];
const body = document.querySelector("#table tbody"), heads = document.querySelector("#table thead");
const control = (id) => document.getElementById(id);
const lower = R.names.map((name) => name.toLowerCase());
let order = Array.from({ length: N }, (_, i) => i), sorted = null, rising = true, page = 0, shown = [];

function valueOf(name, i) {
  if (name === "") return lower[i];
  if (name === "ec50") return COLUMNS.log2_ec50.at(i);
  return COLUMNS[name].at(i);
}

function sortBy(name) {
  rising = sorted === name ? !rising : true;
  sorted = name;
  const isMissing = (v) => v === "" || (typeof v === "number" && Number.isNaN(v));
  const keyed = Array.from({ length: N }, (_, i) => [valueOf(name, i), i]);
  keyed.sort(([a, i], [b, j]) => {
    if (isMissing(a) || isMissing(b)) return isMissing(a) - isMissing(b) || i - j;
    const less = a < b ? -1 : a > b ? 1 : 0;
    return (rising ? less : -less) || i - j;
  });
  order = keyed.map(([, i]) => i);
  drawHead();
  filter();
}

function drawHead() {
  const row = element("tr");
  for (const c of HEAD) {
    const cell = element("th", { scope: "col" });
    const button = element("button", { type: "button", title: c.meaning || "" }, c.head);
    const mine = sorted === c.name;
    cell.setAttribute("aria-sort", mine ? (rising ? "ascending" : "descending") : "none");
    button.append(mine ? (rising ? " ▲" : " ▼") : "");
    button.addEventListener("click", () => {
      sortBy(c.name);
      [...heads.querySelectorAll("button")][HEAD.indexOf(c)].focus();
    });
    cell.append(button);
    row.append(cell);
  }
  heads.replaceChildren(row);
}

function filter(keep = false) {
  const parts = control("search").value.toLowerCase().split(/[,;\s]+/).filter(Boolean);
  const whole = control("search").value.trim().toLowerCase();
  const called = control("which").value === "called", way = control("way").value;
  shown = order.filter((i) => {
    if (called && !isCalled(i)) return false;
    if (way && !(isCalled(i) && direction(i) === way)) return false;
    return !parts.length || lower[i].includes(whole) || parts.some((part) => lower[i].includes(part));
  });
  if (!keep) page = 0;
  drawRows();
}

function cellOf(c, i) {
  if (c.name === "") {
    const cell = element("td", { class: "name" });
    const button = element("button", { type: "button" }, R.names[i]);
    cell.append(button);
    return cell;
  }
  if (c.name === R.effect) return element("td", { class: "nowrap" }, interval(c.name, i));
  if (c.name === "note") return element("td", { class: "note" }, noteOf(i));
  if (c.name === "ec50") return element("td", { class: "nowrap" }, minus(c.at(i)));
  const v = c.at(i);
  return element("td", { class: "nowrap" }, typeof v === "number" ? number(v) : v.replaceAll("_", " "));
}

function drawRows() {
  const per = Number(control("rows").value), pages = Math.max(1, Math.ceil(shown.length / per));
  page = Math.min(page, pages - 1);
  const rows = [];
  for (const i of shown.slice(page * per, (page + 1) * per)) {
    const row = element("tr", i === picked ? { class: "picked", "aria-current": "true" } : {});
    row.dataset.feature = i;
    for (const c of HEAD) row.append(cellOf(c, i));
    rows.push(row);
  }
  body.replaceChildren(...rows);
  control("count").textContent = `${shown.length.toLocaleString("en")} of ${N.toLocaleString("en")}`;
  control("page").textContent = `page ${page + 1} of ${pages}`;
  control("back").disabled = control("first-page").disabled = page === 0;
  control("forward").disabled = page >= pages - 1;
  const at = shown.indexOf(picked);
  control("previous").disabled = at <= 0;
  control("next").disabled = at < 0 || at >= shown.length - 1;
}

body.addEventListener("click", (event) => {
  const row = event.target.closest("tr");
  if (!row) return;
  const i = Number(row.dataset.feature), button = event.target.closest("button");
  pick(i);
  if (button) {
    const again = body.querySelector(`tr[data-feature="${i}"] button`);
    if (again) again.focus();
  }
});

// A cell that another program would take for a formula is not one.
const plainText = (text) => (/^[=+@\-\t\r]/.test(text) ? `'${text}` : text).replace(/[\t\r\n]+/g, " ");

function saveTable() {
  const columns = R.columns.filter((c) => c.name !== "direction");
  const told = (v) => (typeof v === "number" ? (Number.isFinite(v) ? String(Number(v.toPrecision(6))) : "") : plainText(v));
  const lines = [[R.words.feature, ...columns.map((c) => c.name)].join("\t")];
  for (const i of shown) lines.push([plainText(R.names[i]), ...columns.map((c) => told(c.at(i)))].join("\t"));
  save("table.tsv", `${lines.join("\n")}\n`, "text/tab-separated-values");
}

for (const id of ["which", "way", "rows"]) control(id).addEventListener("change", () => filter());
control("search").addEventListener("input", () => filter());
control("filters").addEventListener("submit", (event) => {
  event.preventDefault();
  if (shown.length) pick(shown[0]);
});
const turn = (to) => () => {
  page = to(page);
  drawRows();
};
control("first-page").addEventListener("click", turn(() => 0));
control("back").addEventListener("click", turn((p) => p - 1));
control("forward").addEventListener("click", turn((p) => p + 1));
control("save-table").addEventListener("click", saveTable);
