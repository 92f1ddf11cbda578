"""The report page of a run and the overlay picture."""

from __future__ import annotations

import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emim.report import banner
from emim.report.cohort_table import cohort_table
from emim.report.overlay import write_overlay
from emim.report.page import write_report
from emim.report.pretrain_sections import pretrain_sections
from emim.report.reconstruction import COLUMNS, reconstructions
from emim.report.record import read_run
from emim.report.views import cut, largest_slices

LINES = {"L_a": 0.991, "L_b": 0.982, "L_c": 0.643, "L_c_unseen": 0.708}
PRETRAIN_SECTIONS = (
    "verdict", "loss", "reconstruction", "collapse", "training", "cohort", "split", "configuration",
    "environment", "timings",
)  # fmt: skip
FINETUNE_SECTIONS = ("verdict", "dice", "preview", "training", "structures", "transfer", "cohort", "split")


class Page(HTMLParser):
    """The parts of a page that tests ask about; complains about tags that do not match."""

    EMPTY = ("meta", "img", "br")

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.ids, self.tags, self.links, self.sources, self.open = [], [], [], [], []
        self.alts, self.text = [], ""
        self.raw = file.read_text(encoding="utf-8")
        self.feed(self.raw)
        assert not self.open
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        if tag not in self.EMPTY:
            self.open.append(tag)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.links += [attributes["href"]] if "href" in attributes else []
        self.sources += [attributes["src"]] if "src" in attributes else []
        self.alts += [attributes.get("alt", "")] if tag == "img" else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data + " "


def write_json(file: Path, data) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(data), encoding="utf-8")


def write_events(run: Path, events) -> None:
    lines = (json.dumps({"v": 1, "time": 1e9 + i, **e}) + "\n" for i, e in enumerate(events))
    (run / "events.jsonl").write_text("".join(lines), encoding="utf-8")


def train_metric(step: int, loss: float = 0.5, **other) -> dict:
    masks = {"mask_ratio": 0.75, "mask_modal": 0.25, "mask_position": 0.26, "mask_patch": 0.24}
    values = {"reconstruction": loss, "regulariser": 1.0, "regulariser_weight": 0.1, **masks}
    rates = {"learning_rate": 1e-4, "grad_norm": 0.7}
    return {"type": "metric", "step": step, "split": "train", "loss": loss + 0.1, **values, **rates, **other}


def validation_metric(step: int, loss: float = 0.4, **other) -> dict:
    values = {"reconstruction": loss, "modal": 0.3, "position": 0.5, "patch": None, "output_variance": 0.4}
    levels = {"effective_rank": [5, 4], "rank_ratio": [0.5, 0.4], "uniformity": [0.1, 0.2]}
    levels["correlation"] = [0.1, None]
    return {"type": "metric", "step": step, "split": "validation", **values, **levels, **other}


def case_row(name: str, modalities, **other) -> dict:
    images = {m: f"/data/{name}/{m}.nii.gz" for m in modalities}
    facts = {"size": [20, 24, 16], "spacing": [1.0, 1.0, 3.0], "orientation": "LPS", "range": [0.0, 812.0]}
    files = {p: {**facts, "problems": []} for p in images.values()}
    row = {"id": name, "subject": name, "usable": True, "images": images, "label": None}
    return {**row, "label_values": None, "problems": [], "notes": [], "files": files, **other}


def write_cohort(run: Path, names, modalities, extra=()) -> None:
    cases = [*(case_row(n, modalities) for n in names), *extra]
    write_json(run / "cohort.json", {"modalities": list(modalities), "cases": cases})
    write_json(run / "split.json", {"training": list(names[1:]), "validation": list(names[:1])})


def write_preview(run: Path, modalities, case: str) -> None:
    rng = np.random.default_rng(0)
    original = rng.normal(size=(len(modalities), 8, 12, 10)).astype(np.float32)
    hidden = rng.random(original.shape) < 0.5
    (run / "report").mkdir(parents=True, exist_ok=True)
    np.savez(
        run / "report" / "preview.npz",
        original=original,
        masked=np.where(hidden, 0, original),
        reconstructed=0.5 * original,
        hidden=hidden,
        foreground=np.ones(original.shape[1:], bool),
        modalities=np.array(modalities),
        case=np.array(case),
        step=np.array(20),
    )


def pretrain_run(run: Path, state="healthy", modalities=("T1", "FLAIR"), names=("a", "b", "c")) -> Path:
    settings = {"preprocess": {"spacing": [1.0, 1.0, 3.0]}, "train": {"steps": 20, "grad_clip": 1.0}}
    write_json(run / "config.json", {"version": 1, "command": "pretrain", **settings})
    write_json(run / "environment.json", {"emim": "0.1.0", "torch": "2.5.1"})
    write_json(run / "collapse_lines.json", LINES)
    verdict = {"state": state, "why": ["Because of 1 < 2 & L_c."], "advice": ["Do this."]}
    write_json(run / "report" / "verdict.json", verdict)
    write_cohort(run, names, modalities)
    write_preview(run, modalities, names[0])
    events = [{"type": "status", "text": "Reading the cohort."}, validation_metric(0, 1.0)]
    events += [e for s in range(1, 21) for e in (train_metric(s, 1 / s),)]
    events += [validation_metric(20), {"type": "result", "run": str(run)}]
    write_events(run, events)
    return run


def finetune_run(run: Path) -> Path:
    core = {"name": "Core & rim", "values": [1, 3], "output": 1, "color": [216, 101, 79], "terminology": None}
    config = {"command": "finetune", "train": {"steps": 10}, "structures": [core], "overlapping": False}
    write_json(run / "config.json", {"version": 1, "init": "/runs/pre", **config})
    write_cohort(run, ("a", "b"), ("T1", "FLAIR"))
    transfer = {"source": "/runs/pre", "loaded": ["enc.0"], "adapted": [["enc.in", "channels reordered"]]}
    write_json(run / "transfer.json", {**transfer, "new": ["head"], "left_out": [["dec", "not needed"]]})
    dice = {"type": "metric", "split": "validation", "dice_per_structure": {"Core & rim": 0.5, "Cyst": None}}
    rates = {"learning_rate": 1e-4, "grad_norm": 1.0}
    events = [{"type": "metric", "split": "train", "step": s, "loss": 1 / s, **rates} for s in range(1, 11)]
    write_events(run, [*events, {**dice, "step": 5, "dice": 0.8125}, {**dice, "step": 10, "dice": 0.5}])
    (run / "model").mkdir()
    image = np.random.default_rng(0).normal(size=(2, 8, 12, 10)).astype(np.float32)
    label = np.zeros(image.shape[1:], np.int16)
    label[3:6, 3:7, 3:7] = 1
    (run / "report").mkdir()
    arrays = {"image": image, "reference": label, "prediction": np.roll(label, 1, 1)}
    np.savez(run / "report" / "preview.npz", **arrays, case=np.array("a"), step=np.array(10))
    return run


def check_self_contained(page: Page) -> None:
    assert page.sources and all(s.startswith("data:image/") for s in page.sources)
    assert not {"script", "link", "iframe", "object", "embed"} & set(page.tags)
    assert "http:" not in page.raw and "https:" not in page.raw and "@import" not in page.raw
    assert "url(" not in page.raw
    assert all(href.startswith("#") or href == "../model/" for href in page.links)
    assert all(page.alts) and len(page.alts) == len(page.sources)


def test_pretraining_page_is_complete_and_self_contained(tmp_path):
    run = pretrain_run(tmp_path / "Läufe" / "première")
    file = write_report(run)
    assert file == run / "report" / "report.html"
    assert sorted(p.name for p in file.parent.iterdir()) == ["preview.npz", "report.html", "verdict.json"]
    page = Page(file)
    check_self_contained(page)
    assert set(PRETRAIN_SECTIONS) <= set(page.ids)
    assert all(href[1:] in page.ids for href in page.links)
    assert "Healthy" in page.text and "Because of 1 < 2 & L c ." in page.text and "Do this." in page.text
    assert "première" in page.text and "FLAIR" in page.text and "2.5.1" in page.text
    assert any(all(f"{n} {v:.3f}" in alt for n, v in LINES.items()) for alt in page.alts)
    # 10 plots, and 5 pictures of 2 modalities in 2 planes.
    assert sum("svg+xml" in s for s in page.sources) == 10
    assert sum("image/png" in s for s in page.sources) == 20
    assert "No values yet" not in page.text


def test_collapse_lines_are_named_in_the_plot(tmp_path):
    from emim.report import figures

    svg = figures.loss(read_run(pretrain_run(tmp_path)))
    for value in LINES.values():
        assert f"{value:.3f}" in svg
    assert "validation" in svg and "training" in svg


@pytest.mark.parametrize(
    ("state", "light"),
    [
        ("healthy", "good"),
        ("undecided", "unsure"),
        ("complete collapse", "bad"),
        ("dimensional collapse", "bad"),
    ],
)
def test_traffic_light(tmp_path, state, light):
    html = banner.verdict(read_run(pretrain_run(tmp_path, state)))
    assert f"<h2>{state.capitalize()}</h2>" in html
    assert f'class="verdict {light}"' in html


def test_names_from_outside_are_escaped(tmp_path):
    evil = '<script>alert("1")</script>'
    run = pretrain_run(tmp_path, names=(evil, "b", "c"), modalities=("T1", f"T2{evil}"))
    extra = case_row("d", ("T1",), usable=False, problems=[f"T1: {evil}"])
    write_cohort(run, (evil, "b", "c"), ("T1", evil), [extra])
    write_json(run / "report" / "verdict.json", {"state": "healthy", "why": [evil]})
    write_json(run / "environment.json", {evil: evil})
    with open(run / "events.jsonl", "a") as file:
        file.write(json.dumps({"type": "warning", "what": evil, "where": evil, "hint": evil}) + "\n")
    page = Page(write_report(run))
    assert "script" not in page.tags and "<script" not in page.raw
    assert evil in page.text
    check_self_contained(page)


def test_empty_run_folder(tmp_path):
    page = Page(write_report(tmp_path / "new"))
    assert set(PRETRAIN_SECTIONS) <= set(page.ids)
    assert "No verdict yet" in page.text and "No preview yet" in page.text
    assert "img" not in page.tags


def test_half_written_files_are_left_out(tmp_path):
    run = pretrain_run(tmp_path)
    events = (run / "events.jsonl").read_text().splitlines(keepends=True)[:-1]
    (run / "events.jsonl").write_text("".join(events) + '{"v": 1, "type": "metric", "st')
    for name in ("cohort.json", "report/verdict.json", "report/preview.npz"):
        content = (run / name).read_bytes()
        (run / name).write_bytes(content[: len(content) // 2])
    write_json(run / "split.json", ["not", "a", "table"])
    page = Page(write_report(run))
    assert "No verdict yet" in page.text and "No preview yet" in page.text
    assert sum("svg+xml" in s for s in page.sources) == 10


def test_metrics_that_are_null_or_odd(tmp_path):
    run = pretrain_run(tmp_path)
    nothing = dict.fromkeys(("reconstruction", "modal", "output_variance", "rank_ratio", "uniformity"))
    odd = [
        train_metric(1, grad_norm=None, regulariser=None, regulariser_weight=None),
        train_metric(2, learning_rate=True),
        validation_metric(0, **{**nothing, "reconstruction": None}),
        {"type": "metric", "split": "train", "loss": 1.0},
        {"type": "metric", "split": "train", "step": "x"},
        {"type": "progress", "unit": "step", "done": 3, "total": 20},
    ]
    write_events(run, odd)
    page = Page(write_report(run))
    assert "No values yet" in page.text
    record = read_run(run)
    assert record.steps_done == 3
    assert record.curve("train", "grad_norm")[0].tolist() == [2]
    assert record.curve("train", "learning_rate")[0].tolist() == [1]


def test_resumed_run_keeps_the_latest_value_of_each_step(tmp_path):
    first = [train_metric(s, 10 + s) for s in (1, 2, 3, 4)]
    second = [train_metric(s, 20 + s) for s in (3, 4, 5)]
    write_events(tmp_path, first + second)
    record = read_run(tmp_path)
    steps, values = record.curve("train", "reconstruction")
    assert steps.tolist() == [1, 2, 3, 4, 5]
    assert values.tolist() == [11, 12, 23, 24, 25]
    assert record.repeated == 2
    assert "Interrupted" in Page(write_report(tmp_path)).text


def test_error_at_the_end_is_shown_on_top_until_the_run_goes_on(tmp_path):
    run = pretrain_run(tmp_path)
    error = {"type": "error", "what": "The disk is full.", "where": "/x", "hint": "Make room."}
    write_events(run, [train_metric(1), error])
    html = banner.verdict(read_run(run))
    assert "Stopped by an error" in html and "Make room." in html
    write_events(run, [train_metric(1), error, train_metric(2)])
    html = banner.verdict(read_run(run))
    assert "Stopped by an error" not in html and "Healthy, so far" in html


@pytest.mark.parametrize("count", [1, 6])
def test_any_number_of_modalities(tmp_path, count):
    modalities = tuple(f"M{i}" for i in range(count))
    planes = reconstructions(read_run(pretrain_run(tmp_path, modalities=modalities)))
    for rows in planes.values():
        assert [r.modality for r in rows] == list(modalities)
        assert all(len(r.pictures) == len(COLUMNS) for r in rows)


def test_missing_modality_is_said_not_drawn(tmp_path):
    run = pretrain_run(tmp_path)
    with np.load(run / "report" / "preview.npz") as file:
        arrays = dict(file)
    arrays["original"][1] = 0
    np.savez(run / "report" / "preview.npz", **arrays)
    html = "".join(body for _, _, body in pretrain_sections(read_run(run)))
    assert "not there in this case" in html
    assert html.count("image/png") == 10


def test_cohort_table_shows_what_is_missing_and_wrong(tmp_path):
    run = pretrain_run(tmp_path)
    lacking = case_row("lacking", ("T1",))
    broken = case_row("broken", ("T1", "FLAIR"), usable=False, problems=["FLAIR: it is cut short"])
    broken["files"]["/data/broken/FLAIR.nii.gz"]["problems"] = ["it is cut short"]
    twice = case_row("twice", ("T1",), usable=False, duplicates={"FLAIR": ["x", "y"]}, problems=["2 files"])
    many = tuple(f"case {i}" for i in range(300))
    write_cohort(run, many, ("T1", "FLAIR"), [lacking, broken, twice])
    (run / "table.html").write_text(cohort_table(read_run(run)), encoding="utf-8")
    page = Page(run / "table.html")
    assert "303 cases found: 301 usable (301 subjects), 2 left out, 1 of the usable ones" in page.text
    assert '<td class="missing">missing</td>' in page.raw
    assert '<td class="problem">it is cut short</td>' in page.raw
    assert '<td class="problem">2 files</td>' in page.raw
    assert "20×24×16 1×1×3 mm · LPS · 0…812" in page.text
    assert page.text.count("left out") == 3 and "case 299" in page.text


def test_finetuning_page(tmp_path):
    page = Page(write_report(finetune_run(tmp_path)))
    check_self_contained(page)
    assert set(FINETUNE_SECTIONS) <= set(page.ids)
    assert "Validation Dice 0.812" in page.text and "best at step 5" in page.text
    assert "Core & rim" in page.text and "rgb(216,101,79)" in page.raw
    assert "channels reordered" in page.text and "not needed" in page.text and "/runs/pre" in page.text
    assert "1 loaded, 1 new, 1 adapted, 1 left out" in page.text
    assert "../model/" in page.links
    assert sum("image/png" in s for s in page.sources) == 3


def test_finetuning_from_scratch_without_anything_else(tmp_path):
    write_json(tmp_path / "config.json", {"version": 1, "command": "finetune"})
    page = Page(write_report(tmp_path))
    assert "random weights" in page.text and "from scratch" in page.text and "No validation yet" in page.text
    assert "../model/" not in page.links


def test_cuts_follow_the_radiological_convention():
    z, y, x = np.meshgrid(range(3), range(4), range(5), indexing="ij")
    for plane in ("axial", "coronal"):
        left_to_right = cut(x, plane, 1)
        assert (np.diff(left_to_right, axis=1) == 1).all()  # to the patient's left
    assert (np.diff(cut(y, "axial", 1), axis=0) == 1).all()  # anterior up
    assert (np.diff(cut(z, "coronal", 1), axis=0) == -1).all()  # head up
    assert (np.diff(cut(z, "sagittal", 1), axis=0) == -1).all()
    assert (np.diff(cut(y, "sagittal", 1), axis=1) == 1).all()  # nose to the left


def test_largest_slices_prefer_the_middle():
    mask = np.zeros((9, 9, 9), bool)
    assert largest_slices(mask) == {"axial": 4, "coronal": 4, "sagittal": 4}
    mask[1, 2:5, 2:8] = True
    mask[7, 2, 2] = True
    assert largest_slices(mask) == {"axial": 1, "coronal": 2, "sagittal": 2}


COLORS = {1: (255, 0, 0), 2: (0, 0, 255)}
NAMES = {1: "Höhle $x$", 2: "Ödem"}


def body() -> np.ndarray:
    """A grey block with air around it, (Z, Y, X)."""
    image = np.zeros((20, 40, 40), np.float32)
    image[2:18, 4:36, 4:36] = 100
    image[10, 20, 20] = 50
    return image


def panels(file: Path) -> list[np.ndarray]:
    """Axial, coronal and sagittal picture: the runs of columns with something in them."""
    rgb = np.asarray(Image.open(file).convert("RGB")).astype(int)
    rgb = rgb[: int(0.85 * len(rgb))]  # without the legend
    inside = (rgb.max(-1) > 20).any(0)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], inside.astype(int), [0]])))
    pieces = [rgb[:, a:b] for a, b in zip(edges[::2], edges[1::2], strict=True)]
    return [p for p in pieces if p.shape[1] > 60]


def red(picture: np.ndarray) -> np.ndarray:
    return (picture[..., 0] - picture[..., 1:].max(-1)) > 40


def center(mask: np.ndarray) -> tuple[float, float]:
    """Row and column of the centre of a mask as shares of the picture."""
    rows, columns = np.nonzero(mask)
    return float(rows.mean() / mask.shape[0]), float(columns.mean() / mask.shape[1])


def test_overlay_shows_the_label_where_it_is(tmp_path):
    label = np.zeros(body().shape, np.int16)
    # To the patient's left (high x), to the front (low y), near the head (high z).
    label[13:16, 8:14, 26:32] = 1
    file = write_overlay(body(), label, (2.0, 1.0, 1.0), COLORS, NAMES, tmp_path / "ü.png")
    axial, coronal, sagittal = panels(file)
    row, column = center(red(axial))
    assert row < 0.45 and column > 0.6
    row, column = center(red(coronal))
    assert row < 0.45 and column > 0.6
    row, column = center(red(sagittal))
    assert row < 0.45 and column < 0.4
    assert [p.name for p in tmp_path.iterdir()] == ["ü.png"]


def test_overlay_keeps_proportions(tmp_path):
    label = np.zeros(body().shape, np.int16)
    file = write_overlay(body(), label, (2.0, 1.0, 1.0), COLORS, NAMES, tmp_path / "a.png")
    for picture in panels(file):
        grey = picture.min(-1) > 60
        # More than the letters at the edges.
        rows, columns = (np.flatnonzero(grey.mean(a) > 0.3) for a in (1, 0))
        # 32 mm in every direction, though 16 slices.
        assert np.ptp(rows) == pytest.approx(np.ptp(columns), rel=0.08)


def test_overlay_of_an_empty_label_and_a_constant_image(tmp_path):
    label = np.zeros(body().shape, np.int16)
    file = write_overlay(body(), label, (1, 1, 1), COLORS, NAMES, tmp_path / "a.png")
    assert not any(red(p).any() for p in panels(file))
    label[:] = 2
    file = write_overlay(np.zeros_like(body()), label, (1, 1, 1), COLORS, NAMES, file, volumes={2: 32.0})
    rgb = np.asarray(Image.open(file).convert("RGB")).astype(int)
    assert ((rgb[..., 2] > 60) & (rgb[..., 0] < 60)).mean() > 0.3


def test_overlay_refuses_arrays_that_do_not_fit(tmp_path):
    with pytest.raises(ValueError, match="one shape"):
        write_overlay(body(), np.zeros((3, 3, 3)), (1, 1, 1), COLORS, NAMES, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_report_is_light():
    heavy = "torch", "monai", "SimpleITK", "matplotlib.pyplot"
    code = f"import sys, emim.report.page; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
