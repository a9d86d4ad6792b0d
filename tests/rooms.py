"""The rooms of the tests: which tests belong to a room of the code, what they may cost, how they are dealt to workers.

`python tests/rooms.py data` prints the test files of a room and of the rooms that import it (`make test ROOM=data`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]

BUDGET = {
    "real": 50, "core": 40, "processes": 40, "plugins": 40, "kernels": 35, "kit": 35, "algorithms": 30, "badinput": 30,
    "page": 30, "resume": 20, "compare": 20,
    "trackers": 20, "rewards": 18, "feedback": 15, "pages": 15, "data": 15, "wrappers": 7, "tasks": 5, "advantages": 5, "peers": 12,
}  # fmt: skip
"""Seconds that a folder of tests may add to `make test` on two idle cores (half of its processor time), the largest first."""

TESTS = {
    # rooms of core/hookline
    "cli": [
        "core/test_coming_from_page", "core/test_commands", "core/test_examples", "core/test_experiments_page",
        "badinput/test_strangers",
    ],
    "testing": ["kit/*", "processes/test_same_steps", "core/test_open_phase", "kernels/test_bench"],
    "study": [
        "feedback/test_annotators", "feedback/test_contests",
        "feedback/test_feedback_page", "feedback/test_judged_models", "compare/*", "real/*",
        "core/test_reproduce",
        "core/test_notebook", "core/test_finished",
    ],
    "loop": [
        "core/test_beginning", "core/test_best_and_roles", "core/test_completions", "core/test_longer",
        "core/test_context", "core/test_lent", "core/test_life",
        "core/test_nothing_learned", "core/test_odd_components", "core/test_promises", "core/test_rollouts",
        "core/test_rounds", "core/test_unjudged", "resume/*", "badinput/test_numbers", "badinput/test_processes",
    ],
    "runs": ["core/test_life", "core/test_outlook", "resume/*", "trackers/test_jsonl", "badinput/test_processes"],
    "inference": [
        "core/test_compared", "core/test_drawing", "core/test_engine_answers", "core/test_fixed", "core/test_penalties", "core/test_slots",
    ],
    "training": [
        "peers/*",
        "core/test_engine", "core/test_likelihoods", "core/test_master_copies", "core/test_muon", "core/test_packing", "core/test_schedule",
        "core/test_sizes_page", "core/test_state",
    ],
    "plan": ["core/test_rates", "core/test_epochs", "badinput/test_combinations", "badinput/test_config*"],
    "models": [
        "core/test_family", "core/test_networks", "core/test_prompts_once", "core/test_model_kinds", "core/test_models_page",
        "core/test_placement",
        "algorithms/test_own_parameters",
        "core/test_on_a_gpu",
        "badinput/test_models",
        "tasks/test_tabular", "real/*", "rewards/test_reward_folders",
    ],
    "tokens": [
        "data/test_chat", "data/test_encode", "data/test_templates", "data/test_turns", "data/test_no_text",
        "badinput/test_models", "real/*",
    ],
    "files": ["data/test_containers", "data/test_formats", "data/test_large_files", "data/test_disguised"],
    "data": ["data/*", "badinput/test_data", "feedback/test_stores", "real/*"],
    "registry": ["plugins/*", "rewards/test_in_a_run"],
    "config": ["badinput/test_config*", "core/test_types", "core/test_python_objects"],
    "contract": ["feedback/*", "plugins/test_adding_a_kind", "plugins/test_contract", "core/test_context"],
    "storage": ["core/test_state", "core/test_once", "badinput/test_checkpoints", "resume/*"],
    "batch": ["advantages/*", "core/test_engine", "core/test_rollouts"],
    "world": ["core/test_devices", "processes/*", "resume/test_two_processes"],
    "kernels": ["kernels/*"],
    "errors": ["badinput/*"],
    "synonyms": ["badinput/test_words", "core/test_coming_from_page", "real/test_init_from"],
    # folders of plugins/hookline_plugins
    "advantages": ["advantages/*"],
    "algorithms": ["algorithms/*"],
    "commands": [
        "core/test_commands", "core/test_coming_from_page", "compare/test_comparing_page", "kernels/test_bench", "real/test_init*",
        "feedback/test_contests", "feedback/test_judge_command", "feedback/test_stores_command",
    ],
    "asking": ["page/test_desk", "page/test_deciding", "feedback/test_judge_command"],
    "environments": [
        "data/test_environments*", "data/test_turns_played", "data/test_turns_examples", "data/test_tools", "data/test_adapters",
    ],
    "formats": ["data/test_containers", "data/test_writing", "feedback/test_formats_*"],
    "feedback": ["feedback/*", "core/test_unjudged", "resume/*"],
    "guidance": ["algorithms/*"],
    "judging": ["feedback/test_contests", "feedback/test_judge_command", "feedback/test_sources", "rewards/test_judge*"],
    "likelihoods": [
        "algorithms/test_likelihoods_of_judgements", "algorithms/test_latent_reward", "algorithms/test_planted_rewards",
        "algorithms/test_preferences",
    ],
    "maths": ["algorithms/*", "advantages/*", "wrappers/*"],
    "outputs": ["algorithms/test_latent_reward", "algorithms/test_judgements", "rewards/test_reward_folders"],
    "page": ["page/*"],
    "posting": ["rewards/test_judge*", "rewards/test_remote"],
    "report": ["trackers/test_ages", "trackers/test_report", "pages/*"],
    "rewards": ["rewards/*", "wrappers/*", "tasks/*"],
    "rollouts": [
        "algorithms/test_preferences*", "algorithms/test_values*", "algorithms/test_judgements", "algorithms/test_corrections",
        "data/test_environments*", "data/test_turns_played",
    ],
    "tasks": ["tasks/*"],
    "sampling": ["core/test_sampling_options", "core/test_commands", "feedback/test_contests", "wrappers/test_off_policy"],
    "splits": ["data/test_splits", "algorithms/test_judgements", "feedback/test_feedback_page"],
    "stores": ["feedback/test_store*"],
    "trackers": ["trackers/*"],
    "user_code": ["rewards/*"],
    "wrappers": ["wrappers/*"],
    # the tests themselves
    "tests": ["test_*", "core/test_rooms", "core/test_sentences", "core/test_api_page", "core/test_changes"],
}  # fmt: skip
"""Room → the tests that fail when it is broken."""


def importers(room: str) -> set[str]:
    """The rooms that import one, by the graph that the import contracts are checked against."""
    import grimp

    graph = grimp.build_graph("hookline", "hookline_plugins", cache_dir=None)
    found = set()
    for module in graph.modules:
        if module.split(".")[1:2] == [room]:
            found |= {other.split(".")[1] for other in graph.find_modules_that_directly_import(module) if "." in other}
    return (found & set(TESTS)) - {room}


def files_of(rooms: Iterable[str]) -> list[Path]:
    """The test files of these rooms, each once."""
    patterns = [pattern for room in rooms for pattern in TESTS[room]]
    return sorted({path for pattern in patterns for path in (ROOT / "tests").glob(f"{pattern}.py") if _tests(path)})


def _tests(path: Path) -> bool:
    return path.name.startswith("test_")


# -- workers and shards

WHOLE = ("compare", "trackers")
"""Folders whose files read the same finished runs, so one worker takes them all."""


SERIAL = "threads_change_no_bit", "thread_counts_agree"
"""Parts of the names of tests that start several threads: one worker takes them all, so that they run one by one."""


def sorted_by_cost(items: list[pytest.Item]) -> list[pytest.Item]:
    """The costliest rooms first, so that both workers end at about the same time."""
    order = list(BUDGET)
    return sorted(items, key=lambda item: order.index(room) if (room := _room(item.nodeid)) in order else len(order))


def group_of(nodeid: str, slow: bool) -> str:
    """What one worker takes as a whole: a file, or several of a room; of the slow tests each alone."""
    if any(part in nodeid for part in SERIAL):
        return "threads"
    if slow:
        return nodeid
    return _room(nodeid) if _room(nodeid) in WHOLE else nodeid.partition("::")[0]


def _room(nodeid: str) -> str:
    return nodeid.partition("::")[0].removeprefix("tests/").partition("/")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """For pytest-xdist: groups by room. Its own `loadgroup` needs marks in the names of tests, which pytest 9.2 does not take."""
    from xdist.scheduler import LoadScopeScheduling

    slow = config.getoption("markexpr").startswith("slow")

    class ByRoom(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid, slow)

    config.option.loadscopereorder = False  # the order is that of sorted_by_cost
    return ByRoom(config, log)


def shard(items: list[pytest.Item], which: str) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """The slow tests of one of several parts of about equal time, as `3/8` says, and those left out.

    `@pytest.mark.slow(90)` says how many seconds a test takes, where these are more than ten.
    """
    number, _, count = which.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise pytest.UsageError(f"--shard is {which!r}; it is I/N with I from 1 to N, for example 3/8")
    slow = [(item, mark) for item in items if (mark := item.get_closest_marker("slow"))]
    filled = [0.0] * int(count)
    part: dict[str, int] = {}
    for item, mark in sorted(slow, key=lambda pair: (-sum(pair[1].args or (10,)), pair[0].nodeid)):
        least = min(range(int(count)), key=filled.__getitem__)
        filled[least] += sum(mark.args or (10,))
        part[item.nodeid] = least
    kept = [item for item in items if part.get(item.nodeid) == int(number) - 1]
    return kept, [item for item in items if part.get(item.nodeid) != int(number) - 1]


if __name__ == "__main__":
    asked = sys.argv[1]
    if asked not in TESTS:
        sys.exit(f"there is no room {asked!r}; rooms: {', '.join(sorted(TESTS))}")
    print(*(path.relative_to(ROOT) for path in files_of({asked, *importers(asked)})))
