"""What ranks tell one another, and how each kind of end of one of them ends the others."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest

import ranks
from hookline.errors import ExperimentError
from hookline.runs.surroundings import Surroundings
from hookline.world.place import Place
from hookline.world.world import World
from warm import Warm

PROGRAM = Path(__file__).with_name("rank.py")
Said = list[tuple[int, str, str]]


def of(warm: Warm, what: str, size: int = 2) -> Said:
    return ranks.finished(ranks.start(warm, [[PROGRAM, what]] * size), timeout=30)


def test_values_of_two_ranks(warm: Warm) -> None:
    (code, zero, _), (_, one, _) = of(warm, "values")
    assert code == 0
    same = "4.0, 1, True, [0, 1, 10, 11], ['a', 'b'], 'from 0'"
    sums = "[[3.0, 3.0, 3.0], [2.0, 2.0]]"
    assert zero == f"[{same}, (0, 7), ([2, 0], 3), [0, 1], [], {sums}]\n"
    assert one == f"[{same}, (3, 7), ([1], 3), [2, 3, 4], [0], {sums}]\n"


def test_different_exchanges_are_named_on_every_rank_and_told_once(warm: Warm) -> None:
    (code, _, told), (other, _, silent) = of(warm, "apart")
    assert (code, other) == (5, 5)
    assert "rank 0 is in sum of hookline_reward of judge; rank 1 is in max of hookline_reward of judge" in told
    assert told.count("Error: ") == 1
    assert not silent


def test_an_exchange_on_one_rank_alone_is_named(warm: Warm) -> None:
    (code, _, told), (other, _, _) = of(warm, "alone")
    assert (code, other) == (5, 5)
    assert told.count("Error: ") == 1
    assert "the end of the run" in told


def test_a_rank_that_dies_ends_the_others_inside_a_hook(warm: Warm) -> None:
    (code, out, told), (died, _, _) = of(warm, "killed")
    assert (code, died) == (7, -signal.SIGKILL)
    assert float(out.split()[2]) < 2.0
    assert told.startswith("ServiceError: rank 1 died, last seen in hookline_reward of judge → run the same command")


def test_a_hook_that_catches_everything_is_ended_too(warm: Warm) -> None:
    began = time.monotonic()
    (code, _, told), _ = of(warm, "stubborn")
    assert code == 7
    assert "ServiceError: rank 1 died" in told
    assert time.monotonic() - began < 10


def test_an_error_of_one_rank_is_the_error_of_all_and_told_by_rank_0(warm: Warm) -> None:
    (code, _, told), (own, _, silent) = of(warm, "raises")
    assert (code, own) == (3, 3)
    assert told == "DataError: rank 1: row 7 has no 'prompt' → write one\n"
    assert not silent


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_hangs_is_named_with_its_hook_and_the_exchange(warm: Warm, rank: int) -> None:
    said = of(warm, f"hangs{rank}")
    assert [code for code, _, _ in said] == [7, 7]
    told = said[1 - rank][2]
    assert "the ranks waited 2 s for sum of hookline_reward of judge" in told
    assert f"rank {rank} did not come and was last seen in hookline_reward of judge" in told
    assert not said[rank][2], "one of them tells"


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_stopped_is_named(warm: Warm, rank: int) -> None:
    started = ranks.start(warm, [[PROGRAM, f"stops{rank}"]] * 2)
    try:
        _, err = started[1 - rank].communicate(timeout=20)
        assert f"rank {rank} did not come" in err
        assert started[1 - rank].wait() == 7
    finally:
        os.kill(started[rank].pid, signal.SIGKILL)


def test_ranks_wait_for_people_longer_than_for_one_another(warm: Warm) -> None:
    assert [code for code, _, _ in of(warm, "patient")] == [0, 0]


# -- where a process is


PLACE = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "node0", "MASTER_PORT": "29500"}


def test_the_variables_of_torchrun_and_of_srun() -> None:
    assert Place.here({}) == Place()
    assert Place.here({"RANK": "0", "WORLD_SIZE": "1"}) == Place()
    assert Place.here({**PLACE, "LOCAL_RANK": "1"}) == Place(1, 2, 1, "node0", 29500)
    slurm = {"SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_LOCALID": "1", "SLURM_STEP_NODELIST": "gpu[007-009],x"}
    found = Place.here({**slurm, "SLURM_JOB_ID": "1234567"})
    assert (found.rank, found.size, found.local, found.host, found.port) == (3, 4, 1, "gpu007", 29500 + 4567)
    assert Place.here({**slurm, "SLURM_NTASKS": "1"}) == Place()
    assert Place.here(found.environment()) == found


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"RANK": ""}, "the environment has WORLD_SIZE, MASTER_ADDR, MASTER_PORT, but not RANK"),
        ({"WORLD_SIZE": ""}, "has RANK, MASTER_ADDR, MASTER_PORT, but not WORLD_SIZE"),
        ({"MASTER_ADDR": "", "MASTER_PORT": ""}, "but not MASTER_ADDR, MASTER_PORT"),
        ({"RANK": "two"}, "RANK is 'two' in the environment"),
        ({"RANK": "2"}, "RANK is 2 and WORLD_SIZE is 2"),
        ({"MASTER_PORT": "-1"}, "MASTER_PORT is '-1'"),
    ],
)
def test_half_an_environment_is_refused(wrong: dict[str, str], said: str) -> None:
    with pytest.raises(ExperimentError, match=said):
        Place.here({**PLACE, **wrong})


def test_a_port_in_use_and_a_rank_that_never_comes(warm: Warm) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        env = ranks.environment(0, 2, port)
        done = warm.run(PROGRAM, "values", env=env)
    assert done.returncode == 7
    assert f"ServiceError: rank 0 of 2 did not meet the others at 127.0.0.1:{port}" in done.stderr
    alone = warm.run(PROGRAM, "values", env=ranks.environment(0, 2, port))
    assert alone.returncode == 7
    assert "did not meet the others" in alone.stderr


def test_ranks_with_another_torch_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    now = Surroundings.now((), 1, "cpu")
    world = World()
    monkeypatch.setattr(world, "gather", lambda mine, name: [mine, {**mine, "torch": "2.9.0"}])
    with pytest.raises(ExperimentError, match=r"rank 0 and rank 1 differ in torch: 2\.\S+ and 2\.9\.0") as caught:
        now.refuse_others(world, "abc")
    assert caught.value.everywhere
