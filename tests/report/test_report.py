"""The report: one file that asks for nothing, shows names as they are, and holds the numbers of the tables."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

import dream_sc as ds
from dream_sc._report import _stored

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from mudata import MuData

pytestmark = pytest.mark.usefixtures("few_null_features")

EVIL = '</script><img src=x onerror="document.body.dataset.hacked=1"><script>document.body.dataset.hacked=1</script>'
KINDS = {"f4": np.float32, "f8": np.float64, "i4": np.int32, "u4": np.uint32, "u2": np.uint16, "u1": np.uint8}
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


class Page(HTMLParser):
    """The tags of a file with their attributes, the content of scripts and styles, and what is said."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.said: list[str] = []
        self._open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self._open == []
        self.data = json.loads(self.scripts[0])
        *_, curves, guides, _ = self.scripts
        for name, text in (("curves", curves), ("guides", guides)):
            self.data[name]["values"] = text

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")
        if tag not in ("meta", "link", "input"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        where = self._open[-1] if self._open else ""
        if where == "script":
            self.scripts[-1] += data
        else:
            (self.styles if where == "style" else self.said).append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.said).split())

    def column(self, name: str) -> np.ndarray:
        column = next(c for c in self.data["columns"] if c["name"] == name)
        if column["kind"] == "words":
            return np.array(column["levels"], dtype=object)[_array(column["codes"], column["codes_kind"])]
        return _array(column["values"], column["kind"])

    def numbers(self, part: str, i: int) -> np.ndarray | None:
        """Curve or guides of the feature `i` of the table, as the page reads them."""
        of, kind, most = self.data[part], *(("u1", 255) if part == "curves" else ("u2", 65535))
        at = _array(of["place"], "i4")[i]
        if at < 0:
            return None
        low, high, level = _array(of["low"], "f4"), _array(of["high"], "f4"), _array(of["values"], kind)
        level = level.reshape(len(low), -1)[at].astype(float)
        return np.where(level == 0, np.nan, low[at] + (level - 1) * (high[at] - low[at]) / (most - 1))


def _array(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype=KINDS[kind])


@pytest.fixture(scope="module")
def page(titration_fit: AnnData, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(ds.report(titration_fit, tmp_path_factory.mktemp("report") / "report.html"))


def test_it_asks_nobody_for_anything(page: Page) -> None:
    for tag, attributes in page.tags:
        for name in ("src", "href", "action", "srcset", "poster", "data", "content"):
            value = attributes.get(name) or ""
            assert "//" not in value, (tag, name, value)
            if name in ("src", "href") and name in attributes:
                assert value.startswith(("data:", "#")), (tag, value)
        assert not [name for name in attributes if name.startswith("on")], tag
    assert "url(" not in page.styles[0]
    assert "@import" not in page.styles[0]
    for word in ("fetch(", "XMLHttpRequest", "import(", "sendBeacon", "WebSocket", "innerHTML", "eval("):
        assert word not in page.scripts[-1], word
    policy = next(a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a) or ""
    assert policy.startswith("default-src 'none';")
    digest = base64.b64encode(hashlib.sha256(page.scripts[-1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy


def test_it_can_be_used_without_a_mouse_and_read_aloud(page: Page) -> None:
    found = [
        (tag, attributes) for tag, attributes in page.tags if tag in ("canvas", "table", "input", "select", "html")
    ]
    assert dict(page.tags)["html"]["lang"] == "en"
    assert all(a.get("aria-label") for tag, a in found if tag == "canvas")
    labels = sum(tag == "label" for tag, _ in page.tags)
    assert labels == sum(tag in ("input", "select") for tag, _ in found) > 3
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    for media in ("@media print", "prefers-color-scheme: dark"):
        assert media in page.styles[0]
    heads = [tag for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert heads.count("h1") == 1
    assert heads[0] == "h1"


def test_the_table_is_that_of_the_fit(page: Page, titration_fit: AnnData) -> None:
    table = ds.get.trans(titration_fit, sort=True, columns="main")
    assert page.data["names"] == list(table.index)
    for name in table:
        found, wanted = page.column(name), table[name]
        if wanted.dtype.kind == "f":
            np.testing.assert_allclose(found, wanted, rtol=1e-6 if name != "qvalue" else 0)
        else:
            assert list(found) == list(wanted.astype(object).where(wanted.notna(), "").astype(str))
    shown = [c["name"] for c in page.data["columns"] if "head" in c]
    assert set(shown) == {"on_knockdown", "qvalue", "confidence", "log2fc_full", "ec50", "class", "note"}
    assert all(c["meaning"] for c in page.data["columns"] if "head" in c)


def test_curves_are_those_of_the_fit(page: Page, titration_fit: AnnData) -> None:
    x = page.data["curves"]["x"]
    axis = titration_fit.uns["trans"]["axis"]
    np.testing.assert_allclose([x[0], x[-1]], [axis["low"], axis["high"]], atol=1e-5)
    fitted = 0
    for i, name in enumerate(page.data["names"]):
        found = page.numbers("curves", i)
        if name == "GFI1B":
            assert found is None
            continue
        wanted = ds.get.dose_response(titration_fit, name, doses=x)[["median", "lower", "upper"]].to_numpy().T
        size = np.ptp(wanted)
        # 8 bits, and every draw once, where the table takes some more often than others
        np.testing.assert_allclose(found.reshape(3, -1)[0], wanted[0], atol=0.02 * size)
        np.testing.assert_allclose(found.reshape(3, -1), wanted, atol=0.12 * size)
        fitted += 1
    assert fitted == titration_fit.n_vars - 1


def test_guides_show_what_was_observed(page: Page, titration_fit: AnnData) -> None:
    names = page.data["guides"]["names"]
    for i, name in enumerate(page.data["names"][:12]):
        if name == "GFI1B":
            continue
        points = ds.pl.dose_response_data(titration_fit, name).set_index("guide").loc[names]
        found = page.numbers("guides", i).reshape(3, len(names))
        wanted = points[[f"{which}_acting" for which in ("mean", "lower", "upper")]].to_numpy().T
        np.testing.assert_allclose(found, wanted, atol=1e-4 * np.ptp(wanted))
    np.testing.assert_allclose(page.data["guides"]["x_all"], points["log2_dosage"], atol=1e-5)
    assert page.data["guides"]["control"] == points["is_control"].astype(int).tolist()


def test_guides_that_do_not_act_in_some_cells(titration_fit: AnnData, tmp_path: Path) -> None:
    adata = titration_fit.copy()
    guides = adata.uns["trans"]["guides"]
    guides["escaper_fraction"] = np.where(guides["guide"] == "GFI1B_g01", 0.25, 0.0)
    guides["log2_dosage_acting"] = guides["log2_dosage"] - 0.5
    page = Page(ds.report(adata, tmp_path / "a.html"))
    names = page.data["guides"]["names"]
    points = ds.pl.dose_response_data(adata, page.data["names"][0]).set_index("guide").loc[names]
    found = page.numbers("guides", 0).reshape(4, len(names))
    columns = ["mean_acting", "lower_acting", "upper_acting", "mean"]
    np.testing.assert_allclose(found, points[columns].to_numpy().T, atol=1e-4 * np.nanmax(found))
    np.testing.assert_allclose(page.data["guides"]["x"], points["log2_dosage_acting"], atol=1e-5)
    assert page.data["guides"]["escaping"] == points["escaper_fraction"].tolist()


def test_many_control_guides_have_means_alone(tmp_path: Path) -> None:
    adata = ds.datasets.titration(900, 12, rng=0, n_ntc_guides=14)
    ds.tl.fit_technical(adata)
    ds.tl.fit_cis(adata, "GFI1B")
    ds.tl.fit_trans(adata, progress=False)
    page = Page(ds.report(adata, tmp_path / "a.html"))
    of = page.data["guides"]
    assert (len(of["names"]), of["bars"]) == (26, 12)
    assert of["control"] == [0] * 12 + [1] * 14
    points = ds.pl.dose_response_data(adata, page.data["names"][1]).set_index("guide").loc[of["names"]]
    found = page.numbers("guides", 1)
    size = 1e-4 * np.ptp(found)
    np.testing.assert_allclose(found[:26], points["mean_acting"], atol=size)
    np.testing.assert_allclose(found[26:38], points["lower_acting"].iloc[:12], atol=size)
    np.testing.assert_allclose(found[38:], points["upper_acting"].iloc[:12], atol=size)


def test_a_fit_in_which_nothing_was_tested(titration_fit: AnnData, tmp_path: Path) -> None:
    adata = titration_fit[:, ["GFI1B"]].copy()
    page = Page(ds.report(adata, tmp_path / "a.html"))
    assert page.data["names"] == ["GFI1B"]
    assert page.numbers("curves", 0) is None
    assert page.data["effect"] in [c["name"] for c in page.data["columns"]]
    assert "0 of 0 features respond" in page.text


def test_words_are_those_of_the_summary(page: Page, titration_fit: AnnData) -> None:
    said = " ".join(ds.get.summary(titration_fit).split())
    methods = said.split("METHODS PARAGRAPH ")[1].split(" HOW TO CITE")[0]
    assert methods in page.text
    n = len(ds.get.responders(titration_fit))
    assert f"{n} of 39 features respond to the dosage of GFI1B at q < 0.05" in page.text
    assert f"numpy {np.__version__}" in page.text
    assert "Responses to GFI1B" in page.text
    # not run: neither good nor bad
    states = [a["class"] for tag, a in page.tags if tag == "li" and a.get("class") in ("good", "look", "unknown")]
    assert states.count("unknown") == 2
    assert states.count("good") == len(titration_fit.uns["trans"]["flags"])


def test_checks_and_calibration_have_lights(titration_fit: AnnData, tmp_path: Path) -> None:
    adata = titration_fit.copy()
    ds.tl.check_confounding(adata, batch_key="batch")
    ds.tl.calibrate(adata, n=2, progress=False)
    flags = adata.uns["trans"]["flags"]
    flags.loc[flags["flag"] == "many_responders", ["raised", "advice"]] = [True, "look for features that stay"]
    page = Page(ds.report(adata, tmp_path / "a.html"))
    lights = [a["class"] for tag, a in page.tags if tag == "li" and "class" in a]
    assert lights[0] == "doubtful"
    assert "Share of responders. look for features that stay" in page.text
    assert "Confounding. none of 9 checks is flagged" in page.text
    rates = ds.get.calibration(adata)
    assert f"{rates['fpr'].iloc[0]:.3g} ± {rates['se'].iloc[0]:.3g}" in page.text
    assert "offset of stable features" in page.text


@pytest.fixture(scope="module")
def evil(titration_fit: AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report whose names are markup."""
    adata = titration_fit.copy()
    best = ds.get.responders(adata).index[0]
    guides = adata.uns["trans"]["guides"]
    adata.var["symbol"] = [EVIL if name == best else name for name in adata.var_names]
    guides["target"] = guides["target"].astype(str).replace("GFI1B", EVIL)
    return ds.report(adata, tmp_path_factory.mktemp("evil") / "a.html", gene_symbols="symbol", title=EVIL)


def test_names_are_shown_and_not_run(evil: Path) -> None:
    page = Page(evil)
    assert page.data["names"][0] == EVIL
    assert page.data["guides"]["targets"][0] == EVIL
    assert [tag for tag, _ in page.tags].count("script") == 4
    assert "img" not in [tag for tag, _ in page.tags]
    assert page.text.count("document.body.dataset.hacked=1") >= 4  # in the title and in the table of guides
    hidden = _stored.as_json({"a": "<!-- & \u2028 </script>"})
    assert not set("<>&\u2028") & set(hidden)
    assert json.loads(hidden) == {"a": "<!-- & \u2028 </script>"}


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no browser is here")
def test_a_browser_draws_it(evil: Path) -> None:
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=3000",
        "--enable-logging=stderr",
    ]
    result = subprocess.run(
        [*command, "--dump-dom", f"file://{evil}"], capture_output=True, text=True, check=False, timeout=120
    )
    assert "CONSOLE" not in result.stderr
    drawn = result.stdout
    assert 'data-hacked="1"' not in drawn.replace(EVIL, "")
    body = drawn.split("<body")[1].split(">")[0]
    assert "hacked" not in body
    assert drawn.count("<circle") > 20
    assert re.search(r'<h2 id="curve-title"[^>]*>&lt;/script&gt;', drawn)
    assert len(re.findall(r"<tr data-feature|<tr class=\"picked\"", drawn)) >= 5
    assert "of 40</p>" in drawn


# writes what is drawn on the canvas into the page: names (left, top, right, bottom) and centres of points
RECORDER = """<script>
const seen = { names: [], points: [] }, context = CanvasRenderingContext2D.prototype;
const { fillText, arc } = context;
context.fillText = function (text, x, y, ...rest) {
  if (this.textAlign === "left") seen.names.push([x, y - 9, x + this.measureText(text).width, y + 3]);
  return fillText.call(this, text, x, y, ...rest);
};
context.arc = function (x, y, r, ...rest) {
  if (r < 5) seen.points.push([x, y]);
  return arc.call(this, x, y, r, ...rest);
};
window.addEventListener("load", () => setTimeout(() => {
  const node = document.createElement("pre");
  node.id = "seen";
  node.textContent = JSON.stringify(seen);
  document.body.append(node);
}, 1500));
</script>"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no browser is here")
def test_names_in_the_volcano_cover_neither_names_nor_points(titration_fit: AnnData, tmp_path: Path) -> None:
    text = ds.report(titration_fit, tmp_path / "a.html").read_text(encoding="utf-8")
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', RECORDER, text)
    page = tmp_path / "recorded.html"
    page.write_text(text, encoding="utf-8")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=6000"]
    drawn = subprocess.run(
        [*command, "--dump-dom", f"file://{page}"], capture_output=True, text=True, check=False, timeout=120
    ).stdout
    seen = json.loads(re.findall(r'<pre id="seen">(.*?)</pre>', drawn)[-1])
    # drawn anew where the page changes its width: the last ten names at most, of the last time
    names, points = np.array(seen["names"]), np.array(seen["points"])
    n = len(ds.get.trans(titration_fit).dropna(subset=["qvalue", "log2fc_full"]))
    assert len(points) % n == 0
    times = len(points) // n
    assert len(names) % times == 0
    names, points = names[-(len(names) // times) :], points[-n:]
    assert len(names) >= 5
    for i, (left, top, right, bottom) in enumerate(names):
        inside = (points > [left, top]).all(1) & (points < [right, bottom]).all(1)
        assert not inside.any()
        others = np.delete(names, i, axis=0)
        apart = (others[:, 2] <= left) | (others[:, 0] >= right) | (others[:, 3] <= top) | (others[:, 1] >= bottom)
        assert apart.all()


@pytest.mark.parametrize("mod", ["psi", "score", "robust", "usage", "layers"])
def test_every_kind_of_data(modalities: MuData, mod: str, tmp_path: Path) -> None:
    page = Page(ds.report(modalities, tmp_path / "a.html", mod=mod))
    table = ds.get.trans(modalities, mod=mod, sort=True)
    effect = "delta_full" if mod in ("score", "robust") else "delta_p_full"
    assert page.data["effect"] == effect
    assert page.data["names"] == list(table.index)
    np.testing.assert_allclose(page.column(effect), table[effect], rtol=1e-6)
    name = table.index[0]
    if mod in ("usage", "layers"):
        assert page.column("category")[0] == table["category"].iloc[0]
        name = str(table["category"].iloc[0])
        name = f"{table.index[0]}:{name}" if mod == "layers" else name
    doses = page.data["curves"]["x"]
    wanted = ds.get.dose_response(modalities, name, mod=mod, doses=doses)[["median", "lower", "upper"]].to_numpy().T
    found = page.numbers("curves", 0).reshape(3, -1)
    np.testing.assert_allclose(found, wanted, atol=0.12 * np.ptp(wanted))
    points = ds.pl.dose_response_data(modalities, name, mod=mod).set_index("guide").loc[page.data["guides"]["names"]]
    found = page.numbers("guides", 0).reshape(-1, len(points))
    np.testing.assert_allclose(found[0], points["mean_acting"], atol=1e-3)
    np.testing.assert_allclose(found[2], points["upper_acting"], atol=1e-3)


def test_contexts_that_were_compared(titration_fit: AnnData, tmp_path: Path) -> None:
    adata = titration_fit.copy()
    page = Page(ds.report(adata, tmp_path / "a.html"))
    assert page.data["contexts"] is None
    assert "contexts-table" not in [a.get("id") for _, a in page.tags]
    adata.obs["line"] = np.where(np.arange(adata.n_obs) % 2 == 0, "A", "<b>B")
    ds.tl.compare(adata, "line", reference="A", n_null=0)
    page = Page(ds.report(adata, tmp_path / "a.html"))
    table = ds.get.compare(adata, sort=True)
    table = table[table["lfdr_differs"].notna()]
    called, same = int((table["qvalue_differs"] < 0.05).sum()), int((table["hypothesis"] == "equal").sum())
    assert f"<b>B against A: {called} of {len(table)} features respond differently (q < 0.05)" in page.text
    assert f"{same} have the same curve in both." in page.text
    rows = page.data["contexts"]["rows"]
    assert [row["name"] for row in rows] == list(table.index[: max(5, called)])
    for row in rows:
        wanted = ds.pl.compare_data(adata, row["name"])
        assert row["contexts"] == ["A", "<b>B"]
        for part, name in zip(row["parts"], row["contexts"], strict=True):
            of = wanted[wanted["context"] == name]
            curve, guides = of[of["kind"] == "curve"], of[of["kind"] == "guide"]
            np.testing.assert_allclose(part["curve"], curve[["log2_dosage", "change", "lower", "upper"]].T, rtol=1e-3)
            np.testing.assert_allclose(part["guides"][2], guides["change"], rtol=1e-3)
            assert part["names"] == list(guides["guide"])
    best = table.iloc[0]
    low, high = (f"{best[f'delta_log2fc_full_{end}']:.2f}".replace("-", "−") for end in ("q025", "q975"))
    assert f"({low} to {high})" in page.text
    # a comparison of another fit does not belong here
    adata.uns["compare"]["params"]["key"] = "other"
    assert Page(ds.report(adata, tmp_path / "a.html")).data["contexts"] is None


def test_without_dosages_there_is_one_level(titration_fit: AnnData, tmp_path: Path) -> None:
    adata = titration_fit.copy()
    ds.tl.fit_trans(adata, dosage="none", cis_targets="GFI1B", key_added="acting", progress=False)
    page = Page(ds.report(adata, tmp_path / "a.html", key="acting"))
    assert page.data["curves"]["x"] == [1.0]
    assert not page.data["dosages"]
    level = page.numbers("curves", 0)
    table = ds.get.trans(adata, key="acting", sort=True)
    assert level.shape == (3,)
    change = np.log2(level[0] / table["baseline"].iloc[0])
    assert change == pytest.approx(table["log2fc_full"].iloc[0], abs=0.1)
    assert page.numbers("guides", 0) is not None
    assert "guides act or do not" in page.text


def test_covariates_and_files_give_the_same_points(titration_fit: AnnData, tmp_path: Path) -> None:
    import anndata as ad

    from dream_sc.get import _points
    from dream_sc.get._names import trans_fit

    adata = titration_fit[:, :12].copy()
    adata.obs["age"] = np.random.default_rng(0).normal(size=adata.n_obs)
    ds.tl.fit_technical(adata, batch_key="batch", covariates=["age"])
    ds.tl.fit_cis(adata, "GFI1B")
    ds.tl.fit_trans(adata, progress=False)
    adata.write_h5ad(tmp_path / "a.h5ad")
    wanted = None
    for data in (adata, ad.read_h5ad(tmp_path / "a.h5ad", backed="r")):
        cells = _points.cells(data, trans_fit(data, "trans", None))
        mean, se = _points.counts_of_many(cells, np.array([1, 5, 3]))
        one = _points.counts(cells, 5)
        np.testing.assert_allclose(mean[1], one["mean"], rtol=1e-10)
        np.testing.assert_allclose(se[1], one["se"], rtol=1e-10)
        text = ds.report(data, tmp_path / "a.html").read_bytes()
        wanted = wanted or text
        assert text == wanted


def test_the_same_fit_gives_the_same_file(titration_fit: AnnData, tmp_path: Path) -> None:
    paths = [ds.report(titration_fit, tmp_path / name) for name in ("a.html", "b.html")]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.html", "b.html"]


def test_numbers_come_back() -> None:
    values = np.array([[0.0, 1.0, np.nan, 0.5], [3.0, 3.0, 3.0, 3.0], [np.nan] * 4])
    found = _stored.quantised(values, fine=True)
    low, high = _array(found["low"], "f4"), _array(found["high"], "f4")
    assert list(low) == [0.0, 3.0, 0.0]
    assert list(high) == [1.0, 3.0, 0.0]
    levels = _array(found["values"], "u2").reshape(3, 4)
    assert levels[0].tolist() == [1, 65535, 0, 32768]
    assert (levels[1] == 1).all()
    assert (levels[2] == 0).all()
    words = _stored.words(pd.Series(["b", None, "a", "b"]))
    assert words["levels"] == ["b", "", "a"]
    assert _array(words["codes"], words["codes_kind"]).tolist() == [0, 1, 2, 0]
    assert _stored.quantised(np.empty((0, 3)))["values"] == ""


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        (
            "folder",
            IsADirectoryError,
            "folder is a folder: give the name of a file in it, such as .*folder/report.html",
        ),
        ("none/a.html", FileNotFoundError, "folder .*none is not there"),
        ("file/a.html", NotADirectoryError, "file is a file and not a folder"),
    ],
)
def test_paths_that_cannot_be_written(
    titration_fit: AnnData, tmp_path: Path, path: str, error: type[Exception], message: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(error, match=message):
        ds.report(titration_fit, tmp_path / path)
    assert (tmp_path / "file").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_a_folder_without_leave(titration_fit: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(PermissionError, match="cannot be written to"):
        ds.report(titration_fit, tmp_path / "a.html")


def test_what_is_missing_is_named(titration_fit: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyError, match=r"fit_trans\(data\)"):
        ds.report(ds.datasets.titration(50, 5), tmp_path / "a.html")
    with pytest.raises(ValueError, match="fdr=5 is not between 0 and 1"):
        ds.report(titration_fit, tmp_path / "a.html", fdr=5)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ImportError, match=r'pip install "dream-sc\[report\]"'):
        ds.report(titration_fit, tmp_path / "a.html")
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_there_is_kept_where_writing_fails(
    titration_fit: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.html"
    path.write_text("before")

    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(OSError, match="no space left"):
        ds.report(titration_fit, path)
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.html"]
