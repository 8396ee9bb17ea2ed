import pytest

from search.pricing import LOOKUP_COST, affordable, cost, highest_cost


@pytest.mark.parametrize(
    ("returned", "price"),
    [(0, 1), (1, 1), (99, 1), (100, 2), (101, 2), (199, 2), (1_000, 11), (10_000, 101), (1_000_000, 10_001)],
)
def test_cost_is_one_and_one_more_for_each_full_hundred(returned: int, price: int) -> None:
    assert cost(returned) == price


def test_cost_refuses_a_negative_number_of_records() -> None:
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        cost(-1)


def test_highest_cost_is_the_cost_of_a_full_page() -> None:
    assert highest_cost(100) == 2


@pytest.mark.parametrize("credits", [1, 2, 11, 10_001])
def test_affordable_is_the_most_that_never_costs_more(credits: int) -> None:
    assert (cost(affordable(credits)), cost(affordable(credits) + 1)) == (credits, credits + 1)


def test_affordable_refuses_less_than_any_request_costs() -> None:
    with pytest.raises(ValueError, match="costs at least 1, got 0"):
        affordable(0)


def test_a_lookup_costs_one() -> None:
    assert LOOKUP_COST == 1
