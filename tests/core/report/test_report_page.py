"""The page as a whole: every state of a run, nothing from outside, nothing unescaped, readable without eyes."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pytest

from lesionforge.core.errors import DataError, StoreError
from lesionforge.core.recipe import Job
from lesionforge.core.report import write_report

HOSTILE = '<script>alert("x")</script>'
VOID = {"meta", "link", "img", "wbr", "br", "hr", "input"}
SEGMENTER = {"architecture": "dilated-unet", "size": 32, "steps": 200}
TRAININGS = (
    Job("diffusion", "ddpm", ("real",), {"steps": 200}),
    Job("unet-r", "segmentation", ("real",), SEGMENTER),
    Job("unet-r+s", "segmentation", ("real", "synthetic"), SEGMENTER),
)


class Page(HTMLParser):
    """What a test wants to know of a page: its elements, its text, and whether every tag is closed."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.pieces: list[str] = []
        self.terms: list[list[str]] = []
        self.feed(source)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        assert len(attrs) == len(dict(attrs)), f"<{tag}> has an attribute twice: {attrs}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "dt":
            self.terms.append(["", ""])

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if "style" not in self.open:
            self.pieces.append(data)
        if {"dt", "dd"} & set(self.open):
            self.terms[-1]["dd" in self.open] += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self):
        return squeezed("".join(self.pieces))

    @property
    def facts(self):
        """What stands behind each term of the page's lists: tiles and facts of the run."""
        return {squeezed(term): squeezed(value) for term, value in self.terms}


def squeezed(text: str) -> str:
    """Return text with one plain space wherever there is any kind of blank."""
    return re.sub(r"\s+", " ", text).strip()


def page_of(folder, **arguments) -> Page:
    path = write_report(folder.open(), **arguments)
    assert path == folder.store.root / "report" / "index.html"
    return Page(path.read_text(encoding="utf-8"))


def full(folder):
    folder.begin(jobs=TRAININGS, name="enhanced-ddpm", description="All that a report can show").manifest().fitted()
    folder.shard(0).shard(16)
    images = [f"real-{row:03d}" for row in range(30, 40)]
    rng = np.random.default_rng(5)
    base = dict(zip(images, rng.uniform(0.7, 0.9, 10).tolist(), strict=True))
    better = {image: value + rng.uniform(0.01, 0.05) for image, value in base.items()}
    metrics = {"dice": 0.8512, "iou": 0.75, "hd95": 6.1, "asd": None, "dice_aggregated": 0.88, "parameters": 31036481.0}
    folder.job("diffusion", metrics={}).job("unet-r", metrics=metrics, dice=base)
    folder.job("unet-r+s", metrics={**metrics, "dice": 0.8811}, dice=better, steps=400)
    folder.log(event="chain", start=0.0, seconds=8.0, cases=32)
    return folder


def test_a_full_run_shows_everything(folder, make_real):
    page = page_of(full(folder), real=make_real())
    for words in (
        "enhanced-ddpm",
        "All that a report can show",
        "Research use only",
        "ddpm | segmenter | mask-quality | feature-gate",
        "mask_area below 0.01",
        "mahalanobis_segmenter above 62.5",
        "squared Mahalanobis distance, segmenter encoder",
        "torch 2.11.0",
        "lesionforge 0.1.0",
        "0.8811",
        "31 036 481",
        "Dice: gain on these test images: +",
        "one seed cannot carry the claim",
        "draws of 5 lesions",
        "did not train equally long: 400 steps against 200",
        "step-00000200.png",
        "loss",
        "val_dice",
    ):
        assert words in page.text, words
    tiles = {"cases made": "32 of 32", "acceptance rate": "75 %", "cases per second": "4 whole chain", "Seed": "2024"}
    assert tiles.items() <= page.facts.items()
    assert "Phantom" not in page.text and "phantom" not in page.text
    assert "Unfinished" not in page.text


def test_counts_and_reasons_add_up(folder):
    page = page_of(folder.begin().manifest().shard(0).shard(16))
    rejected = [case for case in folder.open().cases(kept=False)]
    assert (page.facts["accepted"], page.facts["rejected"]) == (str(32 - len(rejected)), "8 for 2 reasons")
    assert "8 cases of 32 turned down" in page.text
    assert page.text.count("4 of 4 cases rejected for this reason") == 2
    assert all(case.id in page.text for case in rejected)


@pytest.mark.parametrize("state", ["nothing", "jobs only", "no chain begun", "interrupted", "none kept", "all kept"])
def test_every_state_of_a_run_has_a_report(folder, state, make_real):
    real = None
    if state == "nothing":
        folder.begin()
        expected = ["0 of 32 cases are committed", "No case is committed yet", "the chain has not begun"]
    elif state == "jobs only":
        folder.begin(chain=None, jobs=TRAININGS[:1]).job("diffusion", metrics={"cases": 12.0, "fid": None})
        expected = ["1 training on real data", "Results of diffusion", "trainings finished"]
    elif state == "no chain begun":
        folder.begin(jobs=TRAININGS).job("diffusion")
        expected = ["Training diffusion has not finished", "Training unet-r has not begun", "interrupted", "0 of 32"]
    elif state == "interrupted":
        folder.begin(count=64).manifest().shard(0)
        (folder.store.shards / ".tmp-00000016-deadbeef").mkdir()
        folder.store.log.write_text('{"event": "chain", "seconds": 2.0, "cases": 16}\n{"event": "cha')
        expected = ["16 of 64 cases are committed", "--resume", "8 whole chain"]
    elif state == "none kept":
        rejected = tuple((row, "mask-quality", "mask_area", 0.0) for row in range(8))
        folder.begin(count=16).manifest().shard(0, rejected=rejected)
        real = make_real()
        expected = ["acceptance rate", "No case was accepted", "16 cases of 16 turned down", "100 %"]
    else:
        folder.begin(count=16).manifest().shard(0, rejected=())
        expected = ["100 %", "16 of 16 accepted cases"]
    page = page_of(folder, real=real)
    seen = page.text + str(page.facts)
    for words in expected:
        assert words in seen, words


def test_a_chain_without_masks_or_without_images_has_a_report(folder, make_real):
    folder.begin(count=32).manifest().shard(0, masks=False)
    page = page_of(folder, real=make_real())
    assert "Mask shapes" not in page.text
    folder.shard(16, images=False)
    assert "Mask shapes" in page_of(folder, real=make_real(masks=False)).text


@pytest.mark.parametrize("where", ["manifest", "chain", "job", "real"])
def test_phantoms_are_called_phantoms(folder, make_real, where):
    chain = "phantom(size=32)" if where == "chain" else "ddpm | mask-quality"
    data = {"name": "x", "phantom": where == "manifest", "cases": 3, "size": 32, "sha256": "0" * 64}
    folder.begin(chain=chain, jobs=TRAININGS[:1]).manifest(data=data).shard(0)
    folder.job("diffusion", phantom=where == "job")
    page = page_of(folder, real=make_real(phantom=where == "real"))
    assert page.all("aside")[0]["aria-label"] == "Phantom data"
    assert "(phantoms)" in page.text
    assert any("accepted phantom case-" in (image["alt"] or "") for image in page.all("img"))
    assert ("phantom reference" in page.text) is (where == "real")


def test_phantom_data_are_never_called_real(folder, make_real):
    page = page_of(full(folder), real=make_real(phantom=True))
    shown = " ".join([page.text, *(attributes.get("aria-label") or "" for attributes in page.all("svg"))])
    captions = re.sub(r"on = \[.*?\]", "", shown)
    assert not re.search(r"\breal (data|images?|masks?|cases|training|test|ones|set)\b", captions)


def test_what_users_write_is_escaped(folder):
    jobs = (Job("train", "mean", ("real",), {"text": HOSTILE}),)
    folder.begin(chain=f"ddpm(prompt={json.dumps(HOSTILE)})", name=HOSTILE, description=HOSTILE, jobs=jobs).manifest(
        data={"name": HOSTILE, "phantom": False, "cases": 1, "size": None, "sha256": HOSTILE}
    )
    rejected = ((1, HOSTILE, "mask_area", 0.5),)
    folder.shard(0, labels=[HOSTILE] * 16, prompts=[HOSTILE] * 16, rejected=rejected)
    folder.job("train", metrics={HOSTILE: 1.0})
    sheet = folder.store.jobs / "train" / "samples"
    (sheet / "step-00000200.png").rename(sheet / "z<script>&quot;.png")
    page = page_of(folder)
    assert not page.all("script")
    assert "<script" not in page.source
    assert page.text.count(HOSTILE) > 8
    assert all(not name.startswith("on") for _, attributes in page.elements for name in attributes)


def test_soft_masks_stand_beside_their_images(folder):
    folder.begin().manifest().shard(0, soft=True)
    page = page_of(folder)
    shown = [picture["alt"] for picture in page.all("img") if "soft mask of" in picture["alt"]]
    assert len(shown) == 8 and "soft mask of case-00000000" in shown
    assert "8 accepted cases" in page.text and "an attention map or a probability" in page.text


def test_every_folder_of_pictures_shows_its_last_one(folder):
    folder.begin(chain=None, jobs=(Job("net", "mean", ("real",), {}),)).job("net", metrics={"loss": 1.0})
    maps = folder.store.jobs / "net" / "maps"
    maps.mkdir()
    (folder.store.jobs / "net" / "samples" / "step-00000200.png").rename(maps / "step-00000300.png")
    page = page_of(folder)
    assert "maps/step-00000300.png" in page.text and "samples/step-00000100.png" in page.text


def test_the_page_needs_nothing_from_outside(folder, make_real):
    page = page_of(full(folder), real=make_real())
    for tag, attributes in page.elements:
        for name in ("src", "href", "srcset", "data", "action"):
            value = attributes.get(name) or ""
            assert not value or value.startswith(("data:", "#")), f"<{tag} {name}={value[:60]!r}>"
    style = page.source.split("<style>")[1].split("</style>")[0]
    assert "@import" not in style and not re.search(r"url\((?!#)", style)
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy and policy.startswith("default-src 'none'") and "script" not in policy
    assert not page.all("script")


def test_the_page_is_readable_without_eyes(folder, make_real):
    page = page_of(full(folder), real=make_real())
    assert page.all("html")[0]["lang"] == "en"
    assert all(image.get("alt") for image in page.all("img"))
    assert all(svg.get("aria-label") or svg.get("aria-hidden") for svg in page.all("svg"))
    assert len(page.all("caption")) == len(page.all("table")) > 5
    assert all(head.get("scope") in ("col", "row") for head in page.all("th"))
    assert len(page.all("figcaption")) == len(page.all("figure")) > 5
    ids = Counter(attributes["id"] for _, attributes in page.elements if "id" in attributes)
    assert max(ids.values()) == 1
    targets = {link["href"][1:] for link in page.all("a")}
    assert targets <= set(ids)
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    numbers = [int(number) for number in re.findall(r"Figure (\d+)\.", page.text)]
    assert numbers == list(range(1, len(numbers) + 1))


def test_the_same_folder_gives_the_same_bytes(folder, make_real):
    full(folder)
    first = write_report(folder.open(), real=make_real()).read_bytes()
    assert write_report(folder.open(), real=make_real()).read_bytes() == first
    assert len(first) < 2_000_000


def test_reference_values_and_their_limit_are_drawn(folder):
    folder.begin().manifest().shard(0).fitted()
    charts = {svg["aria-label"] for svg in page_of(folder).all("svg") if svg.get("aria-label")}
    (gate,) = [words for words in charts if words.startswith("Histogram of mahalanobis_segmenter")]
    assert "real n = 300" in gate and "limit 62.5" in gate


def test_without_reference_values_no_comparison_is_offered(folder):
    page = page_of(folder.begin().manifest().shard(0))
    assert "Histogram of mahalanobis_segmenter" in page.source
    assert "Kolmogorov" not in page.text and "D by chance" not in page.text
    assert "No real masks were given to compare with" in page.text


def test_only_the_training_split_is_shown(folder, make_real):
    folder.begin().manifest().shard(0)
    real = make_real()
    page = page_of(folder, real=real)
    held_out = real.split("test").ids
    assert not [image for image in held_out if image in page.text]
    assert "of 30 cases" in page.text


@pytest.mark.parametrize("file", ["fitted/feature-gate.safetensors", "shards/00000000/ledger.jsonl"])
def test_a_damaged_file_is_named(folder, file):
    folder.begin().manifest().shard(0).fitted()
    (folder.store.root / file).write_bytes(b"\xff{nonsense")
    with pytest.raises(StoreError, match=file.rpartition("/")[2].partition(".")[0]):
        write_report(folder.open())
    assert not (folder.store.root / "report").exists()


def test_a_missing_image_is_named(folder):
    folder.begin().manifest().shard(0)
    case = next(folder.open().cases(kept=True))
    case.files["image"].unlink()
    with pytest.raises(DataError, match=case.id):
        write_report(folder.open())


def test_a_report_that_cannot_be_written_says_so(folder):
    folder.begin().manifest().shard(0)
    folder.store.report.write_text("in the way")
    with pytest.raises(StoreError, match="cannot write"):
        write_report(folder.open())


def test_scores_that_are_not_finite_do_no_harm(folder):
    folder.begin().manifest()
    ledger = folder.shard(0).store.shard(0) / "ledger.jsonl"
    rows = [json.loads(line) for line in ledger.read_text().splitlines()]
    for row in rows:
        row["scores"]["broken"] = None
        if not row["verdict"]["kept"]:
            row["verdict"] |= {"value": None, "threshold": None}
    ledger.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    page = page_of(folder)
    assert "not a finite number" in page.text
    assert "Histogram of broken" not in page.source


def test_a_run_of_the_runner_has_a_report(tmp_path, toys, registry, make_real):
    from lesionforge.core.chain import Chain
    from lesionforge.core.recipe import Recipe, Synthesis

    chain = Chain.parse("blobs(size=32) | threshold(level=0.4) | brightness")
    jobs = (Job("mean-r", "mean"), Job("mean-r+s", "mean", ("real", "synthetic")))
    recipe = Recipe(jobs=jobs, synthesis=Synthesis(chain, count=24, batch_size=8, shard_size=8))
    real = make_real()
    run = recipe.run(output=tmp_path / "run", data=real, device="cpu", registry=registry)
    page = Page(write_report(run, real=real).read_text(encoding="utf-8"))
    for words in ("brightness", "mean-r+s", "val_loss", "Mask shapes", "cases per second", "toy-distribution 1.0"):
        assert words in page.text, words
