"""Every kind of source gives the same images with the same classes, groups and domains, from disks and URLs alike."""

import io
import json
import tarfile
import uuid

import fsspec
import numpy as np
import pandas as pd
import pytest

from mambacl import tasks
from mambacl.tasks.bank import load_bank
from mambacl.tasks.images_config import ImagesConfig
from mambacl.tasks.sources import files
from mambacl.tasks.sources.files import SourceAway, fingerprint, read

from .conftest import CLASSES, IMAGES, SIZES, identities, in_domains, png

EXPECTED = [(c, n, d) for c in range(CLASSES) for n in range(IMAGES) for d in range(3)]


def write(root, name, content):
    with fsspec.open(f"{root}/{name}", "wb", auto_mkdir=True) as file:
        file.write(content)


def write_folder(root):
    for domain, c, n, content in in_domains():
        write(root, f"{domain}/class-{c:02d}/{n}.png", content)
    write(root, "real/class-00/notes.txt", b"no image")
    return {"path": root, "layout": "domain/class"}


def write_list(root, suffix):
    rows = []
    for domain, c, n, content in in_domains():
        write(root, f"files/{domain}-{c}-{n}.png", content)
        rows.append((f"files/{domain}-{c}-{n}.png", f"class-{c:02d}", domain, f"group-{c // 4}"))
    table = pd.DataFrame(rows, columns=["path", "class", "style", "family"])
    with fsspec.open(f"{root}/list{suffix}", "wb") as file:
        table.to_csv(file, index=False) if suffix == ".csv" else table.to_parquet(file)
    return {"path": f"{root}/list{suffix}", "domain": "style", "group": "family"}


def write_shards(root):
    images = in_domains()
    for number in range(3):
        shard = io.BytesIO()
        with tarfile.open(fileobj=shard, mode="w") as tar:
            for domain, c, n, content in images[number::3]:
                facts = json.dumps({"class": f"class-{c:02d}", "style": domain, "family": c // 4}).encode()
                for suffix, data in (("png", content), ("json", facts)):
                    member = tarfile.TarInfo(f"a/{domain}-{c}-{n}.{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
        write(root, f"shard-{number:03d}.tar", shard.getvalue())
    return {"path": f"{root}/shard-{{000..002}}.tar", "domain": "style", "group": "family"}


@pytest.fixture(params=["disk", "url"])
def root(request, tmp_path):
    if request.param == "disk":
        yield str(tmp_path / "data")
        return
    name = f"/{uuid.uuid4().hex}"
    yield f"memory:/{name}"
    fsspec.filesystem("memory").rm(name, recursive=True)


WRITERS = {
    "folder": write_folder,
    "csv": lambda root: write_list(root, ".csv"),
    "parquet": lambda root: write_list(root, ".parquet"),
    "shards": write_shards,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_sources_give_the_same_images_and_labels(kind, root):
    config = WRITERS[kind](root)
    bank = load_bank(ImagesConfig(**config, **SIZES))
    assert sorted(identities(bank.images)) == EXPECTED
    assert [c for c, _, _ in identities(bank.images)] == [c for c in range(CLASSES) for _ in range(3 * IMAGES)]
    assert bank.classes.tolist() == [f"class-{c:02d}" for c in range(CLASSES)]
    assert bank.domains.tolist() == ["clipart", "quickdraw", "real"]
    assert bank.domain.tolist() == [d for _, _, d in identities(bank.images)]
    if "group" in config:
        assert len(set(zip(bank.group.tolist(), (c // 4 for c in range(CLASSES)), strict=True))) == 3


def test_an_npz_at_a_url_with_names_of_domains_and_classes(tmp_path):
    pixels = np.zeros((12 * 6, 8, 8), np.uint8)
    columns = {"font": np.tile([0, 1, 2], 24), "font_names": ["serif", "sans", "mono"]}
    label = np.repeat(np.arange(12), 6)[::-1]
    with fsspec.open("memory://here/a.npz", "wb") as file:
        np.savez(file, images=pixels, label=label, label_names=[f"name {c}" for c in range(12)], **columns)
    bank = load_bank(ImagesConfig(path="memory://here/a.npz", domain="font"))
    assert bank.domains.tolist() == ["mono", "sans", "serif"]
    assert bank.domains[bank.domain][:3].tolist() == ["serif", "sans", "mono"]
    assert bank.classes[:2].tolist() == ["name 0", "name 1"]


def test_classes_of_two_groups_may_have_one_name(tmp_path):
    for alphabet in ("Greek", "Latin", "Hebrew"):
        for c in range(2):
            for n in range(3):
                write(f"{tmp_path}/data", f"{alphabet}/character{c:02d}/{n}.png", png(c, n))
    bank = load_bank(ImagesConfig(path=f"{tmp_path}/data", layout="group/class"))
    assert len(bank.classes) == 6
    assert bank.group.tolist() == ["Greek", "Greek", "Hebrew", "Hebrew", "Latin", "Latin"]


def test_a_simple_shard_has_its_classes_in_cls_files(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for c in range(3):
            for n in range(3):
                for suffix, data in (("cls", b"%d\n" % c), ("png", png(c, n))):
                    member = tarfile.TarInfo(f"{c}{n}.{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    bank = load_bank(ImagesConfig(path=str(tmp_path / "a.tar"), **SIZES))
    assert bank.count.tolist() == [3, 3, 3]
    assert [c for c, _, _ in identities(bank.images)] == [0, 0, 0, 1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize(
    ("name", "content", "config", "line"),
    [
        (
            "a.csv",
            "path,klass\nx.png,1\n",
            {},
            r"task\.path: .*a\.csv has no column 'class' \(did you mean 'klass'\?\)",
        ),
        (
            "a.csv",
            "path,class\nx.png,1\n",
            {"domain": "style"},
            r"task\.domain: .* has no column 'style'; columns: path",
        ),
        ("a.csv", "path,class\nx.png,1\nx.png,2\n", {}, r"task\.path: .* lists x\.png more than once"),
        ("a.csv", "path,class\nx.png,\n", {}, r"task\.path: .*a\.csv has no class in row 1"),
        ("a.parquet", "no parquet", {}, r"task\.path: .*a\.parquet cannot be read as a list"),
        ("a.tar", "no tar file", {}, r"task\.path: .*a\.tar is no shard"),
        ("a.jpg", "", {}, r"task\.path: must be an \.npz, \.csv, \.parquet or \.tar file or a folder"),
        ("f/1.png", "", {"path": "{}/f"}, r"task\.path: .*/f, read as class folders, has no images"),
        (
            "f/1/1.png",
            "",
            {"path": "{}/f", "domain": "style"},
            r"task\.domain: the folder .* has no columns; task\.layout",
        ),
        ("x", "", {"path": "{}/nowhere.csv"}, r"task\.path: no file or folder at .*nowhere\.csv"),
        ("x", "", {"path": "nosuch://a/b.csv"}, r"task\.path: nosuch://a/b\.csv cannot be opened: "),
    ],
)
def test_sources_that_do_not_fit_are_named_in_one_line(tmp_path, name, content, config, line):
    write(str(tmp_path), name, content.encode())
    config = {"path": f"{tmp_path}/{name}"} | config
    config["path"] = config["path"].replace("{}", str(tmp_path))
    with pytest.raises(tasks.ConfigError, match=line) as caught:
        tasks.build({"name": "images", **config})
    assert "\n" not in str(caught.value)


def test_reads_of_a_url_are_tried_again_and_end_in_one_line(monkeypatch):
    """A broken connection says nothing about the images: it stops the work, and leaves none of them out."""
    monkeypatch.setattr(files, "PAUSE", 0.01)
    memory, asked = fsspec.filesystem("memory"), []
    memory.pipe("/flaky/a", b"0123456789")
    real = type(memory).cat_file

    def flaky(self, path, **options):
        asked.append(path)
        if len(asked) % 3:
            raise TimeoutError("connection\nreset")
        return real(self, path, **options)

    monkeypatch.setattr(type(memory), "cat_file", flaky)
    assert read("memory://flaky/a", 2, 3) == b"234"
    assert len(asked) == 3
    with pytest.raises(FileNotFoundError):
        read("memory://flaky/none")
    monkeypatch.setattr(files, "TRIES", 2)
    asked.clear()
    with pytest.raises(SourceAway, match=r"^memory://flaky/a did not answer in 2 tries: connection reset$"):
        read("memory://flaky/a")


def test_a_fingerprint_changes_with_any_file(tmp_path):
    folder = tmp_path / "data"
    write(str(folder), "a/1.png", png(0, 0))
    seen = [fingerprint(files.files_below(str(folder)))]
    for change in (
        lambda: write(str(folder), "a/2.png", png(0, 1)),
        lambda: write(str(folder), "a/2.png", png(0, 2)),  # the same name and size
        lambda: (folder / "a" / "2.png").rename(folder / "a" / "3.png"),
        lambda: (folder / "a" / "3.png").unlink(),
    ):
        change()
        seen.append(fingerprint(files.files_below(str(folder))))
    assert len(set(seen)) == 4
    assert seen[0] == seen[-1], "back to where it was"


def test_s3_needs_no_package_of_its_own(monkeypatch):
    """Without s3fs, pyarrow's own client is used."""
    pyarrow_fs = pytest.importorskip("pyarrow.fs")
    monkeypatch.setitem(__import__("sys").modules, "s3fs", None)
    system, inner = files.filesystem("s3://bucket/folder?region=us-east-1")
    assert isinstance(system.fs, pyarrow_fs.S3FileSystem)
    assert inner == "bucket/folder"
