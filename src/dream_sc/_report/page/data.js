// What the file holds, read back: arrays out of base64, and the numbers of each feature by its place in the table.
const R = JSON.parse(document.getElementById("report-data").textContent);
const N = R.names.length;
const KINDS = { f4: Float32Array, f8: Float64Array, i4: Int32Array, u4: Uint32Array, u2: Uint16Array, u1: Uint8Array };

function array(text, kind) {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return new KINDS[kind](bytes.buffer);
}

const COLUMNS = {};
for (const c of R.columns) {
  if (c.kind === "words") {
    const codes = array(c.codes, "u4");
    c.at = (i) => c.levels[codes[i]];
  } else {
    const numbers = array(c.values, c.kind);
    c.at = (i) => numbers[i];
  }
  COLUMNS[c.name] = c;
}
const q = COLUMNS.qvalue.at;
const effect = COLUMNS[R.effect].at;
const direction = COLUMNS.direction.at;
const isCalled = (i) => q(i) < R.fdr;
const level = array(R.level, "f4");
const ec50 = Object.fromEntries(Object.entries(R.ec50).map(([name, text]) => [name, array(text, "f4")]));

// Numbers that were stored as levels from the least to the largest of a row; level 0 is a missing one.
function quantised(of, kind, most) {
  const low = array(of.low, "f4"), high = array(of.high, "f4");
  const levels = array(of.values, kind), place = array(of.place, "i4");
  const width = low.length ? levels.length / low.length : 0;
  return (i) => {
    const p = place[i];
    if (p < 0) return null;
    const out = new Float64Array(width), unit = (high[p] - low[p]) / (most - 1);
    for (let k = 0; k < width; k++) {
      const l = levels[p * width + k];
      out[k] = l === 0 ? NaN : low[p] + (l - 1) * unit;
    }
    return out;
  };
}
const curveOf = quantised(R.curves, "u1", 255);
const guidesOf = quantised(R.guides, "u2", 65535);

function number(v, digits = 3) {
  if (v === null || !Number.isFinite(v)) return "";
  if (v === 0) return "0";
  const size = Math.abs(v);
  if (size < 1e-3 || size >= 1e6) return v.toExponential(1).replace("e-", "e−").replace("e+", "e").replace(/^-/, "−");
  return String(Number(v.toPrecision(digits))).replace(/^-/, "−");
}

const minus = (text) => text.replace(/-(?=[\d.])/g, "−");

function interval(name, i, digits = 2) {
  const low = COLUMNS[`${name}_q025`], high = COLUMNS[`${name}_q975`];
  const v = COLUMNS[name].at(i);
  if (!Number.isFinite(v)) return "";
  const fixed = (x) => x.toFixed(digits).replace(/^-/, "−");
  const ends = low && high && Number.isFinite(low.at(i)) ? ` (${fixed(low.at(i))} to ${fixed(high.at(i))})` : "";
  return fixed(v) + ends;
}

function save(name, text, kind) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: kind }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
