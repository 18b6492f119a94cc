"""report.html: one file that holds all it needs, whatever names are in it."""

import csv
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from made_grids import TASKS, fill, made_grid, noisy, written

from da.reports.formats.csv_tables import Confusions
from da.reports.formats.html import Page
from da.reports.report import build

VOID = {"meta", "br", "wbr", "img", "link", "input", "hr"}


class Reader(HTMLParser):
    """Elements with their attributes; raises where one is not closed as it was opened."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag, **attributes):
        return [a for t, a in self.found if t == tag and attributes.items() <= a.items()]


def by_class(cell, result):
    """Accuracies of two classes at the last epoch."""
    for streams in result.evaluations[-1].forms.values():
        streams["target/test"] = streams["target/test"].model_copy(
            update={
                "per_class": {"cat": 0.25, "dog": None},
                "confusion": {"cat": {"cat": 1 + cell.seed, "dog": 3}},
            }
        )


@pytest.fixture
def page(tmp_path):
    def make(accuracy=noisy, diverged=lambda cell: False, **settings):
        plan, _ = fill(tmp_path, made_grid(**settings), accuracy, diverged, by_class)
        return Page().render(build(tmp_path, plan))

    return make


def test_a_page_needs_nothing_from_elsewhere_and_has_a_table_for_every_selection(page):
    text = page(tasks=TASKS)
    reader = Reader(text)
    links = [a[key] for _, a in reader.found for key in ("src", "href") if key in a]
    assert links
    assert all(link.startswith(("#", "data:")) for link in links)
    assert not reader.all("link")
    assert "url(" not in text
    assert "@import" not in text
    shown = [a["data-selection"] for _, a in reader.found if "data-selection" in a]
    assert shown == [
        *("last", "label-free InformationMaximisation", "label-free NegativeEntropy", "oracle")
    ]
    pressed = reader.all("button", **{"aria-pressed": "true"})
    assert [a["data-key"] for a in pressed] == ["last", "both"]
    assert [a["value"] for a in reader.all("option")] == shown[1:3]
    assert {a["data-interval"] for a in reader.all("tr") if "data-interval" in a} == {
        *("these", "like")
    }
    ids = [a["id"] for _, a in reader.found if "id" in a]
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    assert "+10.9 [" in text or "+11.0 [" in text or "+11.1 [" in text  # wa - bn on average
    assert '<th scope="row">cat</th>' in text
    assert all(a.get("aria-label") for a in reader.all("svg", role="img"))
    assert all(a.get("scope") in ("row", "col") for a in reader.all("th"))


def test_several_methods_begin_side_by_side_and_each_links_to_its_own_part(page):
    text = page(methods={"M": {}, "N": {}}, seeds=(0, 1))
    reader = Reader(text)
    [part] = re.findall(r'<section id="averages">(.*?)</section>', text, re.DOTALL)
    assert part.count("<table") == 4  # one for each selection
    links = re.findall(r'<th scope="row"><a href="#(.*?)">(.*?)</a>', part)
    assert links == [("method-published-0", "M"), ("method-published-1", "N")] * 4
    own = text.partition('<section id="method-published-1">')[2]
    average = re.findall(r"average \(2 of 2 tasks\), on these tasks</th>(.*?)<td></td></tr>", own)[
        0
    ]
    assert f">N</a></th>{average}</tr>" in part
    assert part.count("<svg") == 4 * 2
    assert {"averages", "method-published-0"} <= {a.get("id") for a in reader.all("section")}


def test_confused_classes_are_shown_over_seeds_and_are_called_missing_where_they_are(page):
    text = page()
    [part] = re.findall(r'<section id="confusion">(.*?)</section>', text, re.DOTALL)
    assert "wa, 3 seeds" in part
    # 1 + 2 + 3 of 15 images are right.
    row = '<th scope="row">cat</th><td class="heat" style="--share:40%">40</td><td class="heat"'
    assert part.count(row) == 2 * 4
    assert '<th scope="row">dog</th>' not in part  # there is no image of it


def test_of_many_classes_the_most_frequent_confusions_are_shown(tmp_path):
    names = tuple(f"c{number}" for number in range(30))
    taken = {name: {"c0": number, name: 10} for number, name in enumerate(names)}

    def confused(cell, result):
        result.classes = list(names)
        streams = result.evaluations[-1].forms[""]
        change = {"per_class": dict.fromkeys(names, 0.5), "confusion": taken}
        streams["target/test"] = streams["target/test"].model_copy(update=change)

    plan, _ = fill(tmp_path, made_grid(norms={"wa": {}}), noisy, change=confused)
    built = build(tmp_path, plan)
    [part] = re.findall(r'<section id="confusion">(.*?)</section>', Page().render(built), re.DOTALL)
    first = re.findall(r"<tbody><tr>(.*?)</tr>", part)[0]
    assert re.findall(r">([^<>]+)<", first) == ["c29", "c0", "74.4", "87"]  # 29 of 39, three seeds
    rows = list(csv.DictReader(io.StringIO(Confusions().render(built))))
    assert len(rows) == 2 * (1 + 29 * 2)
    last = rows[-2]  # c29 itself comes after it
    assert (last["class"], last["predicted"], last["images"]) == ("c29", "c0", "87")
    assert float(last["share"]) == 74.359


def test_results_of_before_confusion_was_kept_say_so(tmp_path):
    def of_before(cell, result):
        by_class(cell, result)
        for streams in result.evaluations[-1].forms.values():
            streams["target/test"] = streams["target/test"].model_copy(update={"confusion": None})

    plan, _ = fill(tmp_path, made_grid(seeds=(0,)), noisy, change=of_before)
    text = Page().render(build(tmp_path, plan))
    assert "Missing: these results are of a version that did not keep it." in text


def test_what_is_missing_and_what_diverged_is_shown_as_such(page):
    text = page(
        lambda cell: None if (cell.task, cell.seed) == ("b->a", 2) else noisy(cell),
        lambda cell: (cell.norm, cell.seed, cell.task) == ("wa", 0, "a->b"),
    )
    assert "Partial: 9 of 12 runs finished, 2 missing" in text
    assert "diverged (1 of 3)" in text
    assert "– (2 of 3)" in text
    assert "Missing: 3 of 12 runs" in text
    assert "loss is nan" in text
    assert text.count(">not run<") == 2


def test_a_grid_of_which_nothing_ran_is_a_page_too(page):
    reader = Reader(page(lambda cell: None))
    assert not [a for _, a in reader.found if a.get("id") in ("curves", "classes")]


def test_a_target_without_labels_has_no_accuracy_on_the_page(tmp_path):
    plan, _ = fill(tmp_path, made_grid(), noisy, change=unlabelled)
    text = Page().render(build(tmp_path, plan))
    reader = Reader(text)
    assert "The target has no labels: nothing is shown as an accuracy of it." in text
    assert not reader.all("div", **{"data-selection": "last"})
    assert "beats" not in text
    assert reader.all("section", id="curves")  # of the source


def unlabelled(cell, result):
    """No label of the target."""
    for evaluation in result.evaluations:
        for streams in evaluation.forms.values():
            for name in ("target/validation", "target/test"):
                nothing = dict.fromkeys(("accuracy", "class_mean", "cross_entropy"))
                streams[name] = streams[name].model_copy(update=nothing)


def test_a_sweep_is_drawn_against_each_value_of_the_rest(page):
    text = page(seeds=(0,), sweep={"batch_size": (1, 16), "model.scope": ("all", "backbone")})
    for scope in ("all", "backbone"):
        for domain in ("target", "source"):
            assert f"{domain} accuracy in percent against batch size, scope {scope}," in text
    assert "target accuracy in percent against scope, batch_size 16, last epoch" in text
    Reader(text)


def test_a_forest_plot_names_what_is_swept_in_full(page):
    text = page(sweep={"batch_size": (16,)}, seeds=(0, 1))
    labels = re.findall(r'text-anchor="end">([^<]*)</text>', text)
    assert {"these tasks, batch_size 16", "tasks like these, batch_size 16"} <= set(labels)
    assert not [label for label in labels if label.endswith("…")]


NAMES = (
    "<script>alert(1)</script>",
    "a|b$_{x}$*c*",
    "=1+1 [red]%é😀\u202ex",
    "\\frac{",
    '"q"\'&lt;',
)


def test_no_name_breaks_a_format_or_hides_what_it_is(tmp_path):
    tasks = tuple(f"{name}->b" for name in (*NAMES, "new\nline"))
    plan, _ = fill(tmp_path, made_grid(tasks=tasks, seeds=(0, 1)), lambda cell: 0.5 + cell.seed / 9)
    built = written(tmp_path, plan)
    text = (tmp_path / "report.html").read_text()
    reader = Reader(text)
    assert len(reader.all("script")) == 1
    for name in (*NAMES[:2], NAMES[3], NAMES[4]):
        assert f"{name}->b" in reader.texts
    assert "=1+1 [red]%é😀\\u202ex->b" in reader.texts
    assert "new\\nline->b" in reader.texts
    markdown = (tmp_path / "report.md").read_text()
    scripts = [x for x in markdown.splitlines() if x.startswith("| &lt;script")]
    assert scripts
    assert not [x for x in scripts if "<" in x]
    rows = [x for x in markdown.splitlines() if x.startswith("| a\\|b")]
    assert rows
    assert all(r"\$_{x}\$\*c\*->b" in x for x in rows)
    csv_lines = (tmp_path / "table.csv").read_text().splitlines()
    assert not [x for x in csv_lines if re.search(r"(^|,)=1", x)]
    tex = (tmp_path / "report.tex").read_text()
    assert r"a\textbar{}b\$\_\{x\}\$*c*$\rightarrow$b" in tex
    assert r"\textbackslash{}frac\{" in tex
    assert tex.count("{") - tex.count(r"\{") == tex.count("}") - tex.count(r"\}")
    assert built.out == tmp_path


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)

#: Clicks as a user would, and leaves what came of it in the title.
CLICKS = """<script>
const said = [];
const shown = (selector) => [...document.querySelectorAll(selector)]
  .filter((one) => one.getClientRects().length).length;
said.push(shown("[data-selection]"), document.querySelector(".switches").hidden);
document.querySelector("[data-key=oracle]").click();
said.push(shown("[data-selection=oracle]"), shown("[data-selection=last]"));
const both = shown("[data-selection=oracle] tr[data-interval]");
document.querySelector("[data-key=like]").click();
said.push(both, shown("[data-selection=oracle] tr[data-interval]"));
const scores = document.querySelector("[data-scores]");
scores.value = "label-free NegativeEntropy";
scores.dispatchEvent(new Event("change"));
said.push(shown("[data-selection]"), shown("[data-selection='label-free NegativeEntropy']"));
document.querySelector("[data-key=oracle]").click();
// No name of a task is broken into letters on a phone.
said.push([...document.querySelectorAll("[data-selection=oracle] th")].every(
  (one) => !one.textContent.includes("->") || one.offsetHeight < 60));
const table = document.querySelector("[data-selection=oracle] table");
const tasks = () => [...table.tBodies[0].rows].map((row) => row.cells[0].textContent).join(" ");
const [, wa] = [...table.tHead.querySelectorAll("button")].filter(
  (one) => /^(bn|wa)$/.test(one.textContent));
for (let i = 0; i < 3; i++) {
  wa.click();
  said.push(wa.parentElement.getAttribute("aria-sort"), tasks());
}
const input = document.querySelector("input[type=search]");
input.value = "b->a wa";
input.dispatchEvent(new Event("input"));
said.push(shown("table.runs tbody > tr"));
said.push(document.documentElement.scrollWidth <= innerWidth);
document.title = said.join("; ");
</script>"""


@pytest.mark.long
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: install the distribution's package")
def test_a_browser_switches_sorts_and_filters_and_no_page_is_wider_than_a_phone(page, tmp_path):
    file = tmp_path / "clicked.html"
    file.write_text(page(tasks=TASKS).replace("</body>", f"{CLICKS}</body>"))
    done = subprocess.run(
        [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=500,900"),
            *(f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", file.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=240,
    )
    title = re.findall(r"<title>(.*?)</title>", done.stdout)[0]  # charts have some, too
    grid, rising = "a->b b->a a->c c->a", "a->b b->a a->c c->a"
    falling = "c->a a->c b->a a->b"
    assert title.replace("&gt;", ">").split("; ") == [
        *("1", "false", "1", "0", "2", "1", "1", "1", "true"),
        *("descending", falling, "ascending", rising, "", grid),
        *("3", "true"),
    ]
