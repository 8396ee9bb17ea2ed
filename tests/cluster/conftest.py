"""Tests whose money is in a Redis Cluster."""

from collections.abc import Iterator

import pytest

from tests.cluster.nodes import Nodes, in_use, running


@pytest.fixture(scope="session")
def six_nodes() -> Iterator[Nodes]:
    with running() as nodes:
        yield nodes


@pytest.fixture
def cluster(six_nodes: Nodes, stores: None) -> Iterator[Nodes]:
    """A whole cluster of three masters and three replicas holds the money; the product's settings lead to it."""
    six_nodes.heal()
    with in_use(six_nodes):
        yield six_nodes
