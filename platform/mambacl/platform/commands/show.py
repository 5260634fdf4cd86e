"""`mambacl show`: the dry run. Nothing is trained, and nothing written but a picture that was asked for."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro
import yaml

from mambacl.platform.arguments import parse_experiment
from mambacl.platform.console import amount, console, json_line


@dataclasses.dataclass(frozen=True)
class Options:
    picture: Path | None = None
    """Draw an episode of each split into this .png file: the stream in order, the queries beside it."""
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print one JSON object as the last line."""


def main(arguments: list[str]) -> None:
    experiment, options = parse_experiment("show", Options, arguments)
    from mambacl.platform.cost import cost_of
    from mambacl.platform.tracking.classes import classes_of
    from mambacl.tasks.registry import build

    cost, family, picture = cost_of(experiment), build(experiment.task), None
    drawn = classes_of(family)
    splits = {split: (len(found.names), found.digest) for split, found in drawn.splits.items()} if drawn else {}
    if options.picture is not None:
        from mambacl.platform.contact_sheet import save  # matplotlib is needed here only

        picture = str(save(family, options.picture))
    if options.as_json:
        json_line(
            {"name": experiment.name, "digest": experiment.digest, "config": experiment.model_dump(mode="json")}
            | dataclasses.asdict(cost)
            | {"classes": {split: {"count": count, "digest": digest} for split, (count, digest) in splits.items()}}
            | ({} if picture is None else {"picture": picture})
        )
        return
    console.print(
        yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=120), end=""
    )
    steps, batch = experiment.train.steps, experiment.train.batch
    console.print(
        f"\nparameters      {amount(cost.parameters)} ({amount(cost.core_parameters)} in the blocks, "
        f"{amount(cost.active_parameters)} active for one token)"
        f"\nstate           {amount(cost.state_floats, 'floats')} after {experiment.task.examples} examples"
        f"\nFLOPs           {amount(cost.support_flops)} a support example, {amount(cost.query_flops)} a query, "
        f"{amount(cost.episode_flops)} an episode"
        f"\nmemory          {amount(cost.train_bytes, 'B')} for a training step on each worker"
        f"\ntraining        {amount(3.0 * cost.episode_flops * steps * batch, 'FLOP')} over {steps:,} steps of {batch} episodes"
        f"\nconfig digest   {experiment.digest[:12]}"
    )
    if splits:
        console.print(
            "classes         "
            + ", ".join(f"{count:,} {split} ({digest[:12]})" for split, (count, digest) in splits.items())
        )
    if picture is not None:
        console.print(f"picture         {picture}", soft_wrap=True)
