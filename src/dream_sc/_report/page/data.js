// What the file holds, read back: arrays out of base64, and the numbers of each feature by its place in the table.
const R = JSON.parse(document.getElementById("report-data").textContent);
const N = R.names.length;
const KINDS = { f4: Float32Array, f8: Float64Array, i4: Int32Array, u4: Uint32Array, u2: Uint16Array, u1: Uint8Array };

function array(text, kind) {
  if (Uint8Array.fromBase64) return new KINDS[kind](Uint8Array.fromBase64(text).buffer);
  return part(text, kind, 0, null);
}

// Some elements of an array: of large ones only those that are looked at are ever read back.
function part(text, kind, from, count) {
  const size = KINDS[kind].BYTES_PER_ELEMENT, first = from * size, last = count === null ? Infinity : first + count * size;
  const start = Math.floor(first / 3), raw = atob(text.slice(4 * start, 4 * Math.ceil(last / 3)));
  const bytes = new Uint8Array(Math.min(last, 3 * start + raw.length) - first);
  for (let i = 0, at = first - 3 * start; i < bytes.length; i++, at++) bytes[i] = raw.charCodeAt(at);
  return new KINDS[kind](bytes.buffer);
}

const COLUMNS = {};
for (const c of R.columns) {
  let values = null;
  c.all = () => (values ??= c.kind === "words" ? array(c.codes, c.codes_kind) : array(c.values, c.kind));
  c.at = c.kind === "words" ? (i) => c.levels[c.all()[i]] : (i) => c.all()[i];
  COLUMNS[c.name] = c;
}
const q = COLUMNS.qvalue.at;
const effect = COLUMNS[R.effect].at;
const direction = COLUMNS.direction.at;
const isCalled = (i) => q(i) < R.fdr;
const level = array(R.level, "f4");
const ec50 = Object.fromEntries(Object.entries(R.ec50).map(([name, text]) => [name, array(text, "f4")]));

// Numbers that were stored as levels from the least to the largest of a row; level 0 is a missing one.
function quantised(of, id, kind, most) {
  let text = null, low, high, place;
  return (i) => {
    if (text === null) {
      text = document.getElementById(id).textContent;
      [low, high, place] = [array(of.low, "f4"), array(of.high, "f4"), array(of.place, "i4")];
    }
    const p = place[i];
    if (p < 0) return null;
    const out = new Float64Array(of.width), unit = (high[p] - low[p]) / (most - 1);
    const levels = part(text, kind, p * of.width, of.width);
    for (let k = 0; k < of.width; k++) out[k] = levels[k] === 0 ? NaN : low[p] + (levels[k] - 1) * unit;
    return out;
  };
}
const curveOf = quantised(R.curves, "curves-values", "u1", 255);
const guidesOf = quantised(R.guides, "guides-values", "u2", 65535);

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
