"""Random walks on a small graph: find the shortest path to the goal (the toy task of Decision Transformer, Chen et al. 2021, as in trlX).

21 nodes, an edge with probability .1, node 0 is the goal. A walk starts at any other node and has at most ten nodes. Its reward is
its optimality (10 − nodes) / (10 − nodes of the shortest path), or 0 if it never arrives or leaves the graph. The data are 1 000
walks that step at random; cloning them reaches the same optimality, .355 at seed 1000, and the best is 1.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from pydantic import Field

import hookline
from hookline import Process, Record
from hookline_plugins.tasks.exact import ExactTask

NODES, LONGEST, WALKS, GOAL = 21, 10, 1000, 0
State = tuple[int, int, int]
"""(node now, nodes so far, node of the start)"""


class Walks(ExactTask):
    """Splits `train` and `heldout`: the 20 starts (`prompt`). `walks`: the random walks (`prompt`, `completion`)."""

    splits = ("train", "heldout", "walks")

    class Config(hookline.Config):
        seed: int = Field(1000, ge=0)
        """Seed of the graph."""

    def rows(self, split: str) -> Sequence[Record]:
        if split != "walks":
            return [{"prompt": name(node)} for node in range(1, NODES)]
        return [{"prompt": name(walk[0]), "completion": " ".join(map(name, walk[1:]))} for walk in self.graph.walks]

    @cached_property
    def graph(self) -> Graph:
        return Graph(self.config.seed)

    def process(self) -> Process:
        return self.graph


class Graph(Process):
    """Walking on the graph of a seed. The reward is given once, at the goal."""

    def __init__(self, seed: int) -> None:
        draw = np.random.RandomState(seed)
        edge = np.zeros((NODES, NODES), dtype=bool)
        while not edge.any(1).all():
            edge = draw.rand(NODES, NODES) > 0.9
            np.fill_diagonal(edge, False)
        edge[GOAL] = False
        edge[GOAL, GOAL] = True
        self.edge = edge
        self.walks = [self._walk(draw) for _ in range(WALKS)]
        self.shortest = self._shortest()
        self.ways = [[int(to) for to in np.nonzero(row)[0]] for row in edge]

    def _walk(self, draw: np.random.RandomState) -> list[int]:
        start = GOAL
        while start == GOAL:
            start = draw.randint(NODES)
        walk = [start]
        while walk[-1] != GOAL and len(walk) < LONGEST:
            walk.append(int(draw.choice(np.nonzero(self.edge[walk[-1]])[0])))
        return walk

    def _shortest(self) -> list[int]:
        """Number of nodes on the shortest path from each node to the goal, at most ten."""
        nodes = {GOAL: 1}
        queue = deque([GOAL])
        while queue:
            here = queue.popleft()
            for before in np.nonzero(self.edge[:, here])[0]:
                if int(before) not in nodes:
                    nodes[int(before)] = nodes[here] + 1
                    queue.append(int(before))
        return [min(nodes.get(node, LONGEST), LONGEST) for node in range(NODES)]

    def optimality(self, start: int, nodes: int) -> float:
        """The optimality of a walk that reached the goal with this number of nodes, including its start and the goal."""
        spare = LONGEST - self.shortest[start]
        return (LONGEST - nodes) / spare if spare else 1.0

    def starts(self) -> Sequence[tuple[float, State]]:
        return [(1 / (NODES - 1), (node, 1, node)) for node in range(1, NODES)]

    def prompt(self, state: State) -> str:  # type: ignore[override]
        return name(state[0])

    def actions(self, state: State) -> Mapping[str, float]:  # type: ignore[override]
        node, nodes, _ = state
        if node == GOAL or nodes == LONGEST:
            return {}
        ways = self.ways[node]
        return {name(to): 1 / len(ways) for to in ways}

    def step(self, state: State, action: str) -> Sequence[tuple[float, State, float]]:  # type: ignore[override]
        _, nodes, start = state
        to = int(action[1:])
        paid = self.optimality(start, nodes + 1) if to == GOAL else 0.0
        return [(1.0, (to, nodes + 1, start), paid)]


def name(node: int) -> str:
    """A node as a word."""
    return f"n{node}"
