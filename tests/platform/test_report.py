"""The page of a study, of a study that was really run and in a real browser."""

import html
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from mambacl.platform.config import StorageConfig
from mambacl.platform.studying.figures import front_of
from mambacl.platform.studying.finished import find_folder, read
from mambacl.platform.studying.report import report
from mambacl.platform.studying.thresholds import SHARE, first_step, thresholds
from mambacl.tasks.config import ConfigError

POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
MEASURE = """<script>addEventListener("load", () => {
  const measured = {width: innerWidth, folded: document.documentElement.scrollWidth};
  document.querySelectorAll("details").forEach(part => { part.open = true; });
  measured.open = document.documentElement.scrollWidth;
  measured.images = [...document.images].map(image => [image.naturalWidth, image.getBoundingClientRect().right, image.alt]);
  parent.postMessage("MEASURED" + JSON.stringify(measured) + "MEASURED", "*");
});</script>"""
# A frame, since a browser's window is never as narrow as a phone.
FRAME = """<script>addEventListener("message", event => { document.title = event.data; });</script>
<iframe src="page.html" style="border: 0; width: {width}px; height: 900px"></iframe>"""
OWN = ("scores", "curves", "regularisation", "pareto", "importance")


class Tags(HTMLParser):
    """All tags with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def page(weighed):
    return (weighed / "report.html").read_text()


@pytest.fixture
def copy(weighed, tmp_path):
    """The study again, to be changed."""
    shutil.copytree(weighed, tmp_path / "studies" / "copy")
    return tmp_path / "studies" / "copy"


@pytest.mark.parametrize("width", [390, 1280])
def test_reads_on_a_phone_and_on_a_desk(weighed, page, rendered, tmp_path, width):
    """Nothing stands out of the page at the side, folded or not, and every picture is there, with words for it."""
    assert POLICY.search(page)
    (tmp_path / "page.html").write_text(POLICY.sub("", page).replace("</head>", f"{MEASURE}</head>"))
    (tmp_path / "frame.html").write_text(FRAME.replace("{width}", str(width)))
    found = rendered(f"file://{tmp_path}/frame.html")
    measured = json.loads(html.unescape(found.split("MEASURED")[1]))
    assert measured["width"] == width
    assert measured["folded"] <= width
    assert measured["open"] <= width
    of_suites = list((weighed / "results").rglob("*.png"))
    assert len(of_suites) == 2
    assert len(measured["images"]) == len(OWN) + len(of_suites)
    for natural, right, alt in measured["images"]:
        assert natural > 0
        assert right <= width
        assert len(alt) > 40
        assert re.search(r"\d", alt), "its main figures"


def test_needs_no_network_and_no_script(page):
    tags = Tags(page).found
    links = [value for _, attributes in tags for name, value in attributes.items() if name in ("src", "href", "srcset")]
    assert links
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in links)
    assert "script" not in {tag for tag, _ in tags}
    assert not any(name.startswith("on") for _, attributes in tags for name in attributes)
    assert "url(" not in page
    assert "@import" not in page
    anchors = {attributes.get("id") for _, attributes in tags}
    assert {link[1:] for link in links if link[0] == "#"} <= anchors


def test_says_what_was_found(weighed, page):
    rows = pd.read_csv(weighed / "table.csv")
    best = rows.iloc[0]
    assert len(rows) == 5
    assert f"{best['learner']} is best" in page
    for label in rows["learner"]:
        assert f'<th scope="row">{label}</th>' in page
    equal = rows.loc[rows["best_place"] == 1, "learner"].iloc[1:]
    told_apart = page.partition("not distinguishable from it: ")[2].split(".")[0]
    assert all(label in told_apart for label in equal)
    for text in (
        "torch",
        "git commit",
        "nodes: 1",
        "seed 0",
        "second-hand",
        "PED-ANOVA",
        "Nothing: all that was asked for",
    ):
        assert text in page, text


def test_labels_reasons_and_questions_are_text(copy, weighed):
    """What users and errors wrote is shown as they wrote it; what failed and was not run is named with its reason."""
    assert "Does &lt;b&gt;pulling&lt;/b&gt; associations help &amp; whom?" in (weighed / "report.html").read_text()
    summary = json.loads((copy / "results.json").read_text())
    summary["failed"] = {"letters.mamba,weight=0,seed=1": "loss is <nan> & more"}
    summary["not_run"] = {"letters/shift": "shift needs <i>domains</i>"}
    (copy / "results.json").write_text(json.dumps(summary))
    table = copy / "results" / "letters" / "standard" / "positions.csv"
    table.write_text(table.read_text().replace("nearest_mean", "<u>nearest & mean</u>"))
    report(str(copy), StorageConfig())
    page = (copy / "report.html").read_text()
    assert "training letters.mamba,weight=0,seed=1</strong> failed: loss is &lt;nan&gt; &amp; more" in page
    assert "suite letters/shift</strong> not run: shift needs &lt;i&gt;domains&lt;/i&gt;" in page
    assert "&lt;u&gt;nearest &amp; mean&lt;/u&gt;" in page
    assert not {"b", "i", "u", "nan"} & {tag for tag, _ in Tags(page).found}


def test_is_in_mlflow_and_again_after_it_was_written_anew(weighed):
    uri = f"sqlite:///{weighed.parent.parent}/mlflow.db"
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("weighed").experiment_id
    run = client.search_runs([experiment], "attributes.run_name = 'study weighed'")[0].info.run_id
    (weighed / "report.html").write_text("lost")
    assert "report.html" in {artifact.path for artifact in client.list_artifacts(run)}
    files = report("weighed", StorageConfig(root=str(weighed.parent.parent)))["files"]
    assert files[0] == str(weighed / "report.html")
    kept = client.download_artifacts(run, "report.html")
    assert Path(kept).read_text() == (weighed / "report.html").read_text() != "lost"
    assert {artifact.path for artifact in client.list_artifacts(run)} >= {
        "table.csv", "steps_to_threshold.csv", "importance.csv", *(f"letters_{name}.png" for name in OWN),
    }  # fmt: skip


def test_steps_to_the_threshold_are_those_of_the_first_evaluation_as_good(weighed):
    study = read(weighed)
    found = thresholds(study).set_index("learner")
    assert set(found.index) == {"mamba weight=0", "mamba weight=2", "attention weight=0", "attention weight=2"}
    ends = {}
    for entry, curve in study.curves.items():
        ends.setdefault(entry.label, []).append(curve["meta_val/score"].iloc[-1])
    assert found["threshold"].iloc[0] == pytest.approx(SHARE * max(np.mean(own) for own in ends.values()))
    for label, row in found.iterrows():
        steps = [
            first_step(curve, row["threshold"], higher=True)
            for entry, curve in study.curves.items()
            if entry.label == label
        ]
        assert row["seeds"] == len(steps) == 2
        assert row["reached"] == sum(step is not None for step in steps)
    curve = pd.DataFrame({"step": [10, 20, 30], "meta_val/score": [0.5, 0.7, 0.6]})
    assert first_step(curve, 0.6, higher=True) == 20
    assert first_step(curve, 0.8, higher=True) is None
    assert first_step(curve, 0.6, higher=False) == 10


def test_nobody_on_the_front_is_beaten_by_one_that_costs_no_more():
    rows = pd.DataFrame({"learner": list("abcde"), "cost": [50, 20, 20, 30, 5]})  # best first
    assert list(front_of(rows, "cost")["learner"]) == ["e", "b", "a"]


def test_a_study_that_is_not_there_or_not_done_is_named(tmp_path, copy):
    with pytest.raises(ConfigError, match="there are: copy"):
        find_folder("wieghed", StorageConfig(root=str(copy.parent.parent)))
    (copy / "results.json").unlink()
    with pytest.raises(ConfigError, match="has no results yet"):
        read(copy)
