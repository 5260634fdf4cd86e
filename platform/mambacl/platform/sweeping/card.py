"""The card of a registered model, in Markdown."""

import dataclasses

from mambacl.platform.console import sizes
from mambacl.platform.cost import built, size_of
from mambacl.platform.evaluation.statistics import Sample, interval
from mambacl.platform.training.checkpoint import Checkpoint


def model_card(chosen: Checkpoint, reference: str | None = None) -> str:
    """What the model is, what it was trained on, how it scored on meta-val, and how to use it.

    reference: what MLflow is to load it by, by default the champion of its experiment.
    """
    config, progress = chosen.config, chosen.progress
    found = interval(Sample.of(progress.scores))
    task = config.task
    counts = dataclasses.asdict(size_of(*built(config)))
    return f"""# {config.learner.name} for {task.name}, {task.tasks} tasks x {task.shots} shots

| | |
| --- | --- |
| meta-val score | {found} over {found.over} |
| learner | {sizes(counts)} |
| trained | {progress.step:,} of {config.train.steps:,} steps of {config.train.batch} episodes, {progress.seconds:.0f} s |
| selectivity | {config.selectivity.loss}, weight {config.selectivity.weight:.3g} |
| config | `{config.digest[:12]}` |
| data | `{progress.spec.digest[:12]}` |

```python
import mlflow
model = mlflow.pyfunc.load_model("{reference or f"models:/{config.name}@champion"}")
logits = model.predict({{"support_x": ..., "support_y": ..., "query_x": ...}})
```
"""
