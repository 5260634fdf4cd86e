"""Who stands where: all learners of a study with what they scored, what they cost, and the places that they may truly have."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import pandas as pd

from mambacl.platform.console import amount
from mambacl.platform.cost import Size
from mambacl.platform.evaluation.figures import styles
from mambacl.platform.evaluation.statistics import over
from mambacl.platform.evaluation.summary import entries as entries_of
from mambacl.platform.evaluation.summary import shown
from mambacl.platform.evaluation.tables import parts, points_of, where
from mambacl.platform.studying.finished import Finished


def standings(study: Finished) -> pd.DataFrame:
    """A row for each family and learner, best first, from the first of the suites that gives scores.

    family, learner (its label), kind, trained, metric, chance, score, low, high, best_place, worst_place, counts, sizes,
    steps and CPU seconds of its training on average.
    """
    scored = {
        family: [suite for suite, summary in study.suites(family).items() if "score" in summary]
        for family in study.summary["evaluation"]
    }
    tables = [_of_family(study, family, suites[0]) for family, suites in scored.items() if suites]
    return pd.concat(tables, ignore_index=True)


def _of_family(study: Finished, family: str, suite: str) -> pd.DataFrame:
    summary = study.suites(family)[suite]
    places = _places(pd.read_csv(study.results(family, suite) / "scores.csv"))
    rows = []
    for label, answers in entries_of(summary).items():
        own = {e: last for e, last in study.trained.items() if (e.family, e.label) == (family, label)}
        progress = [last.progress for last in own.values()]
        rows.append(
            {
                "family": family,
                "learner": label,
                "kind": next((entry.experiment.learner.name for entry in own), label),
                "trained": bool(own),
                "metric": summary["metric"],
                "chance": summary["chance"],
                **{name: answers[name] for name in ("score", "low", "high")},
                **places[label],
                **{name: answers.get(name) for name in ("score_all", "score_seen", "episodes", "classes", "seeds")},
                **{field.name: answers[field.name] for field in dataclasses.fields(Size)},
                "steps": max((p.step for p in progress), default=0),
                "cpu_seconds": sum(p.cpu_seconds for p in progress) / max(1, len(progress)),
            }
        )
    return pd.DataFrame(rows).sort_values("score", ascending=summary["lower_is_better"], ignore_index=True)


def _places(scores: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Best and worst place of each learner at a suite's first point, from its table of scores."""
    axes = list(scores.columns[: list(scores.columns).index("contestant")])
    first = where(scores, **points_of(scores, axes)[0])
    return {
        row["contestant"]: {"best_place": row["best_place"], "worst_place": row["worst_place"]}
        for row in first.to_dict("records")
    }


def looks_of(study: Finished, rows: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Colour, line and marker of each learner, the same in all figures. rows: as of `standings`."""
    kinds = rows.drop_duplicates("learner").set_index("learner")
    trained = [entry.label for entry in study.trained if entry.label in kinds.index]
    order = list(dict.fromkeys([*trained, *kinds.index]))
    kinds = kinds.loc[order]
    return styles(
        pd.DataFrame({"contestant": order, "learner": list(kinds["kind"]), "trained": list(kinds["trained"])})
    )


def answer(rows: pd.DataFrame) -> str:
    """What the standings say, in words: the best learner of each family, and those that cannot be told apart from it."""
    return " ".join(_sentence(family, mine) for family, mine in parts(rows, "family").items())


def _sentence(family: str, rows: pd.DataFrame) -> str:
    best, *others = rows.to_dict("records")
    counts = counted(rows)
    equal = [_name(row) for row in others if row["best_place"] == 1]
    rest = (
        f"not distinguishable from it: {_listed(equal)}"
        if equal
        else "all others are behind it by their paired differences, all pairs tested together at 5 %"
    )
    text = f"{f'On {family}, ' if family else ''}{_name(best)} is best, with {_measured(best)} over {counts}; {rest}."
    if not best["trained"] and (trained := [row for row in others if row["trained"]]):
        text += f" The best that was meta-trained is {trained[0]['learner']}, with {_measured(trained[0])}."
    text = text[0].upper() + text[1:]
    if not several_seeds(rows):
        text += " With one seed this ranks the trained models and not their learners: another seed may turn it round."
    return text


def several_seeds(rows: pd.DataFrame) -> bool:
    """Whether learners were trained with more than one seed, so that something is known of how much training varies."""
    return bool(rows["trained"].any()) and rows.loc[rows["trained"], "seeds"].max() > 1


def counted(rows: pd.DataFrame) -> str:
    """What the intervals of a family are over, in words."""
    first = rows.sort_values("seeds", ascending=False).iloc[0]
    return over(*(int(first[name]) for name in ("seeds", "classes", "episodes")))


def _name(row: Mapping[str, Any]) -> str:
    return row["learner"] if row["trained"] else f"the reference {row['learner']}"


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _measured(row: Mapping[str, Any]) -> str:
    article = "an accuracy" if row["metric"] == "accuracy" else f"a score ({row['metric']})"
    return f"{article} of {score_cell(row)}{' %' if row['metric'] == 'accuracy' else ''}"


def markdown(rows: pd.DataFrame) -> str:
    """The table for people: of one family with what each learner costs, of several with a column each."""
    if len(parts(rows, "family")) > 1:
        return _families(rows)
    lines = [
        f"| learner | {metric_of(rows)} | parameters | state floats | FLOPs an example | a query | steps | CPU minutes |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows.to_dict("records"):
        trained = f"{row['steps']:,} | {row['cpu_seconds'] / 60:.1f}" if row["steps"] else " | "
        lines.append(
            f"| {row['learner']} | {score_cell(row)} | {row['parameters']:,} | {row['state_floats']:,} "
            f"| {amount(row['support_flops'])} | {amount(row['query_flops'])} | {trained} |"
        )
    return "\n".join(lines) + "\n"


def _families(rows: pd.DataFrame) -> str:
    families = list(rows["family"].unique())
    heads = [f"{family}: {metric_of(where(rows, family=family))}" for family in families]
    lines = [f"| learner | {' | '.join(heads)} |", "| --- |" + " --- |" * len(families)]
    cells = {(row["learner"], row["family"]): score_cell(row) for row in rows.to_dict("records")}
    for learner in rows["learner"].unique():
        lines.append(f"| {learner} | {' | '.join(cells.get((learner, family), '') for family in families)} |")
    return "\n".join(lines) + "\n"


def metric_of(rows: pd.DataFrame) -> str:
    """What a column of scores is: `accuracy, % [95 %]`."""
    metric = rows["metric"].iloc[0]
    return f"{metric}{', %' if metric == 'accuracy' else ''} [95 %]"


def score_cell(row: Mapping[str, Any]) -> str:
    """A learner's score with its interval."""
    return shown(dict(row), "score", "low", "high", row["metric"] == "accuracy")
