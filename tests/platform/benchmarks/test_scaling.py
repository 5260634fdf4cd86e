"""What `bench scaling` compares: one worker and two, not as many as there are CPUs."""

import itertools
import time

from mambacl.platform.benchmarks import scaling
from mambacl.platform.session import session


def test_only_so_many_tasks_run_at_a_time():
    import ray  # after the switches that it reads

    @ray.remote(num_cpus=1)
    def interval():
        began = time.time()
        time.sleep(0.3)
        return began, time.time()

    with session(None), scaling.only(1):
        spans = sorted(ray.get([interval.remote() for _ in range(3)]))
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(spans))
