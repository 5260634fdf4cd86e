"""Config of what a stream is like beyond its size."""

from typing import Annotated, Literal

from pydantic import Field

from mambacl.tasks.config import Config

QueryAfter = Literal["end", "own_task_or_later"]
"""When queries are asked: after the whole stream, or each at the end of its own task or of a later one, drawn evenly."""


class StreamConfig(Config):
    """Order and flaws of the stream, each drawn by the number of the episode. By default class after class, and none."""

    order: Literal["blocked", "shuffled", "revisits"] = "blocked"
    """Task after task; all examples mixed; or the shots of a task in `visits` blocks, with other tasks in between."""
    visits: Annotated[int, Field(ge=2)] = 2
    """For `revisits`: blocks in which the shots of a task come."""
    uneven: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Shots of a task lie between (1 - uneven) and (1 + uneven) times `shots`; over the stream they add up to as many."""
    label_noise: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the support examples that bear the label of an example of another task."""
    distractors: Annotated[int, Field(ge=0)] = 0
    """Tasks in the stream beside `tasks` that no query asks for."""
    open_set: Annotated[int, Field(ge=0)] = 0
    """Tasks that the stream does not have and that queries ask for all the same. These count neither in loss nor score; how
    well they are told apart is reported. For label codes only."""
    query_after: QueryAfter = "end"
    """When queries are asked: at the end of the stream, or each at the end of its own task or a later one (Lee et al.,
    2023, `distributed loss`). A stage of `train.curriculum` may have its own."""
