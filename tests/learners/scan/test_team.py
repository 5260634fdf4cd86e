"""Several threads do one job, whatever threads there are."""

import multiprocessing
import threading

import pytest
import torch

from mambacl.learners.scan import cpu, team


@pytest.fixture(params=["openmp", "python"])
def kind(request, monkeypatch):
    """OpenMP's threads where torch brings them, and Python's, which all other platforms use."""
    if request.param == "python":
        monkeypatch.setattr(team, "_library", None)
    elif team._library is None:
        pytest.skip("no libgomp here")


@pytest.mark.usefixtures("kind")
def test_others_help():
    """Guards the parallelism itself: two calls must be in progress at once for the barrier to open."""
    barrier = threading.Barrier(2, timeout=10)
    team.run(barrier.wait, 2)


@pytest.mark.skipif(team._library is None, reason="no libgomp here")
def test_openmps_threads_are_known_to_python_for_good():
    """Guards the time of a call: Python keeps what belongs to a thread only while it knows the thread."""
    barrier, own, seen = threading.Barrier(2, timeout=10), threading.local(), []

    def work():
        barrier.wait()
        seen.append(hasattr(own, "met"))
        own.met = True

    for _ in range(2):
        team.run(work, 2)
    assert seen == [False, False, True, True]


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("number", [1, 2])
def test_an_error_arrives(number):
    """Guards against results of half a job: an error on any thread is raised where the job was given."""

    def fail():
        raise ArithmeticError("lost")

    with pytest.raises(ArithmeticError, match="lost"):
        team.run(fail, number)


@pytest.mark.usefixtures("kind")
def test_either_kind_gives_the_same_bits(inputs, results, threads):
    """Guards platforms without OpenMP."""
    tensors = inputs(2, 40, 300, 8, torch.float32)
    threads(1)
    expected = results(cpu.selective_scan, tensors)
    threads(2)
    for name, tensor in results(cpu.selective_scan, tensors).items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_can_scan(inputs, threads):
    """Guards data loaders and pools that fork after the parent has scanned: OpenMP would hang in the child."""
    threads(2)
    tensors = [tensor.detach() for tensor in inputs(1, 20, 300, 24, torch.float32).values()]
    expected = cpu.selective_scan(*tensors)[1]
    queue = multiprocessing.get_context("fork").SimpleQueue()
    child = multiprocessing.get_context("fork").Process(
        target=lambda: queue.put(torch.equal(cpu.selective_scan(*tensors)[1], expected))
    )
    child.start()
    child.join(30)
    alive = child.is_alive()
    child.kill()
    assert not alive
    assert queue.get()
