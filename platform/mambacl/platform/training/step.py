"""One optimiser step: losses as sums over what all workers saw, divided by what all workers saw.

So the gradient is the same for any number of workers and accumulated parts.
"""

import contextlib
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from mambacl.learners.learner import Learner, Output, State
from mambacl.learners.objective import losses, scores
from mambacl.learners.selectivity import layer_numbers, selectivity_losses
from mambacl.platform.config import ExperimentConfig
from mambacl.platform.training.worker import Worker
from mambacl.tasks.episode import Episode
from mambacl.tasks.randomness import generator

METRICS = ("train/loss", "train/score", "train/selectivity")

PREFIX = 1 << 39
"""From the number of an episode to that of the one whose state its stream may start from: past all that are trained on."""


class Stepper:
    """Takes optimiser steps with a learner, on this worker's share of each batch."""

    def __init__(
        self, learner: Learner, optimizer: Optimizer, config: ExperimentConfig, worker: Worker, parts: int | None = None
    ) -> None:
        """parts: those that a worker cuts its share of a batch into, by default the config's `accumulate`."""
        self.learner, self.optimizer, self.config, self.worker = learner, optimizer, config, worker
        self.parts = parts or config.train.accumulate
        shared = worker.size > 1 and learner.trainable
        self.model: nn.Module = DistributedDataParallel(learner) if shared else learner

    def step(self, episodes: Callable[[range], Episode], indices: range, step: int) -> Tensor:
        """Update the weights on the episodes with these numbers, and return sums and counts (2 METRICS,) of the METRICS over this
        worker's share: what all workers saw is for the caller to sum, along with what else they have to say.

        step: counted from 0; it decides whether the selectivity term takes part, and seeds dropout.
        """
        worker, train = self.worker, self.config.train
        seed = (self.config.seed << 40) + (step << 12)
        worker.seed(seed)
        self.learner.before_step(step)
        worker.seed(seed + worker.rank)
        own = worker.share(indices)
        passing = generator(self.config.seed, "state passing", step).random() < train.state_passing
        sums = torch.zeros(len(METRICS), dtype=torch.float64)
        counts = torch.zeros(len(METRICS), dtype=torch.float64)
        for part in range(self.parts):
            last = part == self.parts - 1
            numbers = own[part :: self.parts]
            episode = self._coded(episodes(numbers), step).to(worker.device)
            state = None
            if passing:
                before = range(numbers.start + PREFIX, numbers.stop + PREFIX, numbers.step)
                state = self._state_after(episodes(before).to(worker.device))
            with contextlib.nullcontext() if last or worker.size == 1 else self.model.no_sync():  # type: ignore[operator]
                values, numbers = self._accumulate(episode, state, len(indices), step)
            sums += values
            counts += numbers
        if train.clip is not None:
            nn.utils.clip_grad_norm_(self.learner.parameters(), train.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return torch.cat([sums, counts])

    def _coded(self, episode: Episode, step: int) -> Episode:
        """The episodes with the label codes that this step gives them."""
        ordered = self.config.train.ordered_codes
        if ordered is None or step >= ordered.until:
            return episode
        return episode.with_ordered_codes(
            episode.index % self.config.train.batch < ordered.share * self.config.train.batch
        )

    @torch.no_grad()
    def _state_after(self, episode: Episode) -> State:
        """The state after the streams of these episodes, with their noise."""
        with torch.autocast(self.worker.device.type, torch.bfloat16, enabled=self._half()):
            state = self.learner.init_state(len(episode.index))
            support, _ = self.learner.inputs(episode)
            return self.learner.absorb(state, support, episode.support_y)

    def _accumulate(self, episode: Episode, state: State | None, batch: int, step: int) -> tuple[Tensor, Tensor]:
        """Add the gradient of a part of the batch; sums and counts of the METRICS over that part."""
        selectivity = self.config.selectivity
        pulled = selectivity.active(step)
        layers = layer_numbers(selectivity, self.learner.layers) if pulled and self.learner.layers else ()
        with torch.autocast(self.worker.device.type, torch.bfloat16, enabled=self._half()):
            output: Output = self.model(episode, state, layers=layers)
        prediction = output.prediction.float()
        per_query = losses(prediction, episode, self.config.train.codes)
        pulls = [selectivity_losses(association, episode, selectivity) for association in output.associations]
        # Every episode of a step has as many queries, so the count over all workers is known without asking them.
        queries = batch * per_query.shape[1]
        objective = per_query.sum()
        if pulls:
            objective = objective + selectivity.weight * torch.stack([pull.sum() for pull, _ in pulls]).mean()
        if output.balance is not None:
            balance = self.config.learner.experts.balance  # type: ignore[attr-defined]
            objective = objective + balance * output.balance.sum() * per_query.shape[1]
        # DistributedDataParallel averages over workers; a sum over all of them is wanted.
        (objective * (self.worker.size / queries)).backward()
        with torch.no_grad():
            pull_sum = sum(float(pull.sum()) for pull, _ in pulls)
            pull_count = sum(float(counts.sum()) for _, counts in pulls)
            score = scores(prediction, episode, self.config.train.codes)
            values = [float(per_query.sum()), float(score.sum()), pull_sum]
        numbers = [per_query.numel(), score.numel(), pull_count]
        return torch.tensor(values, dtype=torch.float64), torch.tensor(numbers, dtype=torch.float64)

    def _half(self) -> bool:
        possible = self.worker.device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()
        return self.config.train.precision == "bfloat16" and possible
