"""What each split draws from: classes apart, domains apart, and what is known of both."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mambacl import tasks
from mambacl.tasks.bank import ImageBank
from mambacl.tasks.images import ImageFamily
from mambacl.tasks.images_config import ImageFamilyConfig
from mambacl.tasks.labels import Labels
from mambacl.tasks.pools import make_pools
from mambacl.tasks.randomness import SPLITS
from mambacl.tasks.splits import HALVED, check_disjoint, split_classes

DOMAINS = ("clipart", "quickdraw", "real", "sketch")


def bank_of(classes=20, images=3, domains=DOMAINS, test=None, missing=()):
    """`images` images of every class in every domain, less the (class, domain) pairs that are missing."""
    rows = [(c, d) for c in range(classes) for d in range(len(domains)) for _ in range(images) if (c, d) not in missing]
    label, domain = np.array(rows).T
    pixels = np.zeros((len(rows), 8, 8, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = label[:, None, None], domain[:, None, None]
    labels, order = Labels.of(label, domain=np.array(domains)[domain], test=test)
    return ImageBank.in_memory(pixels[order], labels)


def config(**fields):
    return ImageFamilyConfig(**({"tasks": 2, "shots": 1, "queries": 1, "augment": None} | fields))


def domains_seen(bank, pool):
    return set(bank.domains[bank.domain[pool.image]].tolist())


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), tested=st.sampled_from(DOMAINS), disjoint=st.booleans())
def test_no_split_but_meta_test_sees_its_domains(seed, tested, disjoint):
    bank = bank_of(classes=40)
    pools = make_pools(bank, config(seed=seed, test_domains=(tested,), class_disjoint=disjoint))
    train, val, confirm, test = (domains_seen(bank, pools[split]) for split in SPLITS)
    assert test == {tested}
    assert tested not in train | val
    assert confirm == val
    images = [set(pools[split].image.tolist()) for split in SPLITS]
    assert sum(map(len, images)) == len(set.union(*images)), "no image is in two splits"
    classes = [set(pools[split].classes.tolist()) for split in SPLITS]
    if disjoint:
        assert train == val == set(DOMAINS) - {tested}
        assert sum(map(len, classes)) == 40
    else:
        assert classes[0] == classes[3] == classes[1] | classes[2] == set(range(40))
        assert not classes[1] & classes[2], "what is confirmed was not chosen on"
        assert len(val) == 1
        assert train | val == set(DOMAINS) - {tested}
        assert not train & val, "meta-val chooses on images that were not trained on"


def test_meta_val_may_have_domains_of_its_own():
    bank = bank_of()
    pools = make_pools(bank, config(test_domains=("quickdraw",), val_domains=("real",)))
    seen = [domains_seen(bank, pools[split]) for split in SPLITS]
    assert seen == [{"clipart", "sketch"}, {"real"}, {"real"}, {"quickdraw"}]


def test_a_class_without_images_in_a_domain_is_not_in_its_pool():
    bank = bank_of(missing={(c, 1) for c in range(20) if c % 2})
    pools = make_pools(bank, config(test_domains=("quickdraw",), class_disjoint=False))
    assert pools["meta_test"].classes.tolist() == list(range(0, 20, 2))
    assert len(pools["meta_train"].classes) == 20


def test_official_classes_are_those_of_meta_test_and_meta_val_comes_from_the_others():
    bank = bank_of(test=[str(c) for c in range(7)])
    pools = make_pools(bank, config(seed=3))
    assert pools["meta_test"].classes.tolist() == list(range(7))
    rest = [pools[split].classes.tolist() for split in SPLITS[:2]]
    assert sorted(rest[0] + rest[1]) == list(range(7, 20))
    assert [len(classes) for classes in rest] == [11, 2], "60 to 16"


def test_an_official_split_that_cuts_a_group_is_refused():
    with pytest.raises(
        tasks.ConfigError, match=r"task: meta_train and meta_test are not disjoint: both have classes of Greek"
    ):
        check_disjoint(
            np.array(["Greek", "Latin", "Greek"]),
            {"meta_train": np.array([0]), "meta_val": np.array([1]), "meta_test": np.array([2])},
        )


@pytest.mark.parametrize(
    "fields", [{}, {"test_domains": ["real"]}, {"test_domains": ["real"], "class_disjoint": False}]
)
def test_fewer_train_classes_are_among_those_of_more_and_leave_the_other_splits_alone(fields):
    bank = bank_of(classes=40)
    whole = make_pools(bank, config(seed=5, **fields))
    larger = set(whole["meta_train"].classes.tolist())
    for count in (len(larger), 12, 7, 3):
        pools = make_pools(bank, config(seed=5, train_classes=count, **fields))
        classes = pools["meta_train"].classes.tolist()
        assert len(classes) == count
        assert classes == sorted(set(classes) & larger)
        larger = set(classes)
        assert domains_seen(bank, pools["meta_train"]) == domains_seen(bank, whole["meta_train"])
        assert [pools[split].digest for split in SPLITS[1:]] == [whole[split].digest for split in SPLITS[1:]]
        assert all((pools[split].image == whole[split].image).all() for split in SPLITS[1:])
    drawn = {tuple(make_pools(bank, config(seed=s, train_classes=3, **fields))["meta_train"].names) for s in range(4)}
    assert len(drawn) > 1, "by seed, not the first ones"


def test_train_classes_may_cut_through_groups():
    bank = ImageBank.of(np.zeros((60, 8, 8), np.uint8), np.arange(60) // 2, group=np.arange(60) // 20)
    assert [len(make_pools(bank, config(train_classes=7))[split].classes) for split in SPLITS] == [7, 5, 5, 10]


def test_train_classes_are_told_apart_by_the_digest_and_need_to_be_there():
    sizes = {"name": "glyphs", "tasks": 5, "shots": 1, "queries": 1, "augment": None}
    plain, few = tasks.build(sizes), tasks.build(sizes | {"train_classes": 30})
    assert few.spec.digest != plain.spec.digest
    assert (few.episodes("meta_test", range(4)).query_x == plain.episodes("meta_test", range(4)).query_x).all()
    assert few.limits("meta_train")["tasks"] == min(30, few.config.codes)
    most = len(plain.classes["meta_train"])
    with pytest.raises(
        tasks.ConfigError, match=rf"^task\.train_classes: must be at most the {most} classes of meta_train, got 9999$"
    ):
        tasks.build(sizes | {"train_classes": 9999})


@pytest.mark.parametrize(
    "fields",
    [{}, {"train_classes": 7}, {"test_domains": ["real"]}, {"test_domains": ["real"], "class_disjoint": False}],
)
def test_fewer_train_images_are_among_those_of_more_and_leave_the_other_splits_alone(fields):
    bank = bank_of(classes=40, images=5, missing={(c, d) for c in range(0, 40, 3) for d in (0, 1)})
    whole = make_pools(bank, config(seed=5, **fields))
    larger = whole["meta_train"]
    for most in (20, 12, 6, 1):
        pools = make_pools(bank, config(seed=5, train_images=most, **fields))
        pool = pools["meta_train"]
        assert pool.classes.tolist() == larger.classes.tolist()
        assert pool.count.tolist() == [min(most, count) for count in whole["meta_train"].count], "small ones are kept"
        assert set(pool.image.tolist()) <= set(larger.image.tolist())
        for c, start, count in zip(pool.classes, pool.start, pool.count, strict=True):
            assert (bank.images[pool.image[start : start + count], 0, 0, 0] == c).all()
        assert all((pools[split].image == whole[split].image).all() for split in SPLITS[1:])
        larger = pool
    assert len(set((larger.image % 5).tolist())) > 1, "drawn, not the first ones"


def test_a_class_keeps_its_train_images_whatever_other_classes_there_are():
    bank = bank_of(classes=40, images=5)
    many, few = (make_pools(bank, config(train_images=4, train_classes=count))["meta_train"] for count in (None, 6))
    assert set(few.image.tolist()) < set(many.image.tolist())


def test_train_images_are_drawn_from_alone_and_told_apart_by_the_digest():
    sizes = {"name": "glyphs", "tasks": 5, "shots": 1, "queries": 1, "augment": None}
    plain, few = tasks.build(sizes), tasks.build(sizes | {"train_images": 2})
    assert few.spec.digest != plain.spec.digest
    assert few.spec.digest != tasks.build(sizes | {"train_images": 3}).spec.digest
    assert (few.episodes("meta_test", range(4)).query_x == plain.episodes("meta_test", range(4)).query_x).all()
    kept = {few.bank.images[i].numpy().tobytes() for i in few.pools["meta_train"].image}
    episode = few.episodes("meta_train", range(8))
    assert all(x.numpy().tobytes() in kept for x in [*episode.support_x.flatten(0, 1), *episode.query_x.flatten(0, 1)])
    with pytest.raises(
        tasks.ConfigError, match=r"^task\.shots: the smallest class of meta_train has 1 images, an epis"
    ):
        tasks.build(sizes | {"train_images": 1})


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        (
            {"test_domains": ["quikdraw"]},
            r"task\.test_domains: unknown 'quikdraw' \(did you mean 'quickdraw'\?\); allowed: c",
        ),
        ({"test_domains": list(DOMAINS)}, r"task\.test_domains: of .* too few are left for meta_train and meta_val"),
        ({"test_domains": list(DOMAINS[:3]), "class_disjoint": False}, r"task\.test_domains: of .* too few are left"),
    ],
)
def test_domains_that_do_not_fit_are_named(fields, line):
    with pytest.raises(tasks.ConfigError, match=line):
        make_pools(bank_of(), config(**fields))
    with pytest.raises(tasks.ConfigError, match=r"task\.test_domains: the images have no domains"):
        make_pools(ImageBank.of(np.zeros((9, 8, 8), np.uint8), np.arange(9) // 3), config(test_domains=["a"]))


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"class_disjoint": False}, "task: class_disjoint: false needs test_domains"),
        ({"val_domains": ["Sans"]}, "task: val_domains needs test_domains"),
        ({"val_domains": ["Sans"], "test_domains": ["Sans"]}, "task: val_domains and test_domains share Sans"),
    ],
)
def test_fields_that_contradict_each_other_are_named(fields, line):
    with pytest.raises(tasks.ConfigError) as caught:
        tasks.build({"name": "glyphs", **fields})
    assert str(caught.value) == line


def test_glyphs_shift_from_typeface_to_typeface():
    """Leave one typeface out: episodes of meta-test show it alone, and are other episodes than without the shift."""
    sizes = {"name": "glyphs", "tasks": 5, "shots": 1, "queries": 1, "augment": None}
    faces = [f"Serif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")]
    shifted, plain = tasks.build(sizes | {"test_domains": faces}), tasks.build(sizes)
    bank = shifted.bank
    of_faces = {bank.images[i].numpy().tobytes() for i in np.flatnonzero(np.isin(bank.domains[bank.domain], faces))}
    for split in SPLITS:
        episode = shifted.episodes(split, range(8))
        shown = [image.numpy().tobytes() in of_faces for image in episode.support_x.flatten(0, 1)]
        assert all(shown) if split == "meta_test" else not any(shown)
    assert shifted.spec.digest != plain.spec.digest
    assert shifted.pools["meta_test"].domains == tuple(faces)
    assert shifted.pools["meta_test"].names == plain.pools["meta_test"].names
    assert shifted.pools["meta_test"].digest != shifted.pools["meta_val"].digest


@settings(max_examples=50, deadline=None)
@given(groups=st.lists(st.integers(0, 12), min_size=12, max_size=120), seed=st.integers(0, 100))
def test_what_confirms_a_choice_was_not_chosen_on(groups, seed):
    """Meta-val and meta-confirm have no class in common, and neither has less than a third of theirs."""
    groups = np.array(groups)
    if len(np.unique(groups)) < 3:
        groups = np.arange(len(groups))
    classes = split_classes(groups, seed)
    val, confirm = classes["meta_val"], classes["meta_confirm"]
    together = np.union1d(val, confirm)
    assert sorted(np.concatenate([classes["meta_train"], together, classes["meta_test"]])) == list(range(len(groups)))
    if len(together) < HALVED:
        assert val.tolist() == confirm.tolist(), "too few to halve"
        return
    assert not set(val) & set(confirm)
    assert 3 * min(len(val), len(confirm)) >= len(together)


def test_alphabets_are_not_cut_by_what_confirms():
    alphabet = np.repeat(np.arange(30), 10)
    for seed in range(20):
        classes = split_classes(alphabet, seed)
        groups = [set(alphabet[classes[split]].tolist()) for split in SPLITS]
        assert sum(map(len, groups)) == 30 == len(set.union(*groups))


def test_episodes_to_choose_on_are_as_long_as_their_classes_allow():
    """81 classes are 13 for meta-val: six or seven each to choose on and to confirm, where an episode has ten."""
    family = tasks.build({"name": "glyphs", "tasks": 10, "shots": 2, "queries": 1, "augment": None, "vocabulary": 20})
    bank = family.bank.keep(np.arange(81))
    few = ImageFamily(family.config, bank)
    assert [len(few.classes[split]) for split in SPLITS] == [49, 7, 6, 19]
    assert few.check() is few
    assert [few.fitted(split).config.tasks for split in SPLITS] == [10, 7, 6, 10]
    assert few.fitted("meta_val").episodes("meta_val", [0]).tasks == 7
    with pytest.raises(tasks.ConfigError, match=r"^task\.tasks: meta_val has 7 classes, an episode needs 10$"):
        few.episodes("meta_val", [0])


@pytest.mark.parametrize("stream", [{}, {"order": "shuffled", "distractors": 2, "open_set": 1}])
def test_the_classes_that_episodes_ask_about_are_told(stream):
    bank = bank_of(classes=120, domains=("one",))
    family = ImageFamily(config(tasks=4, queries=2, vocabulary=9, stream=stream), bank)
    for split in ("meta_train", "meta_test"):
        episode, asked = family.episodes(split, range(5)), family.asked_classes(split, range(5))
        shown = episode.query_x[:, : 4 * 2 : 2, 0, 0, 0].numpy()
        assert (asked == shown).all()
        assert asked.shape == (5, 4)
    assert tasks.build({"name": "sine"}).asked_classes("meta_test", [0]) is None
