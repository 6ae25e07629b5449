"""The order of steps, cycles, and the longest chain."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from runbooks.graph import Graph, break_cycles
from tests.runbooks.making import only, plan_problems, planned

EDGES = st.dictionaries(
    st.integers(0, 12).map(lambda number: f"s{number:02}"), st.lists(st.integers(0, 12).map(lambda number: f"s{number:02}"), max_size=5)
)


def closed(after: dict) -> dict:
    """Only edges between steps that exist, each once."""
    return {step: list(dict.fromkeys(each for each in before if each in after)) for step, before in after.items()}


def acyclic(after: dict) -> Graph:
    return Graph({step: tuple(each for each in before if each < step) for step, before in closed(after).items()})


@given(EDGES)
def test_every_step_stands_after_all_it_waits_for(after):
    graph = acyclic(after)
    position = {step: index for index, step in enumerate(graph.order)}
    assert set(position) == set(after)
    assert all(position[each] < position[step] for step, before in graph.after.items() for each in before)


@given(EDGES)
def test_the_order_is_that_of_the_file_where_nothing_else_decides(after):
    graph = Graph({step: () for step in after})
    assert graph.order == tuple(after)


@given(EDGES)
def test_without_cycles_nothing_is_taken_away(after):
    graph = acyclic(after)
    assert break_cycles(graph.after) == (graph, ())


@given(EDGES)
def test_every_cycle_is_real_and_without_them_everything_has_an_order(after):
    after = closed(after)
    graph, cycles = break_cycles(after)
    assert len(graph.order) == len(after)
    for cycle in cycles:
        assert cycle[0] == cycle[-1]
        assert all(other in after[one] for one, other in zip(cycle, cycle[1:], strict=False))
    removed = sum(map(len, after.values())) - sum(map(len, graph.after.values()))
    assert removed == len(cycles)


@given(EDGES)
def test_before_means_reachable(after):
    graph = acyclic(after)

    def reach(step: str) -> set[str]:
        return {*graph.after[step], *(further for each in graph.after[step] for further in reach(each))}

    for step in graph.after:
        assert set(graph.upstream(step)) == reach(step)


@given(EDGES, st.lists(st.integers(0, 100), min_size=13, max_size=13), st.integers(0, 12))
def test_the_longest_chain_is_the_longest_of_all_chains(after, costs, end):
    graph = acyclic(after)
    goal = f"s{end:02}"

    def chains(step: str) -> int:
        return costs[int(step[1:])] + max((chains(each) for each in graph.after[step]), default=0)

    path = graph.longest([goal], lambda step: ((step, timedelta(seconds=costs[int(step[1:])])),))
    expected = chains(goal) if goal in graph.after else 0
    assert path.total == timedelta(seconds=expected) == sum((time for _, time in path.parts), timedelta(0))


def test_a_thousand_steps_in_a_row_and_each_after_all_are_quick():
    row = Graph({str(index): (str(index - 1),) if index else () for index in range(1000)})
    assert len(row.upstream("999")) == 999
    full, cycles = break_cycles({str(index): [str(each) for each in range(0, index, 7)] for index in range(1000)})
    assert not cycles
    assert full.is_before("0", "999")


def test_by_default_a_step_waits_for_the_step_before_it():
    plan = planned("steps:\n  - {id: a, uses: test.look}\n  - {id: b, uses: test.look}\n  - {id: last, uses: test.look, after: []}")
    assert {step.id: step.after for step in plan.steps} == {"a": (), "b": ("a",), "last": ()}
    assert plan.dependents["a"] == ("b",)


def test_the_order_of_a_plan_is_stable():
    body = "steps:\n  - {id: last, uses: test.look, after: [b, c]}\n  - {id: c, uses: test.look, after: []}\n  - {id: b, uses: test.look, after: []}"
    assert [step.id for step in planned(body).steps] == ["c", "b", "last"]


def test_a_cycle_is_told_with_everyone_in_it():
    body = "steps:\n  - {id: a, uses: test.look, after: [last]}\n  - {id: b, uses: test.look}\n  - {id: last, uses: test.look}"
    problem = only(plan_problems(body))
    assert problem.startswith("2:37: steps[0] (a).after: ")
    assert "'a' waits for 'last', 'last' waits for 'b' (the step before it), 'b' waits for 'a' (the step before it)" in problem


def test_a_step_that_waits_for_itself_is_refused():
    assert "waits for itself" in only(plan_problems("steps:\n  - {id: last, uses: test.look, after: last}"))


def test_unknown_and_repeated_ids_are_refused_where_they_stand():
    body = "steps:\n  - {id: detect, uses: test.look}\n  - {id: last, uses: test.look, after: [detct]}\n  - {id: detect, uses: test.look}"
    after, again = plan_problems(body)
    assert after.startswith("3:41: steps[1] (last).after[0]: ")
    assert "did you mean 'detect'" in after
    assert again.startswith("4:10: steps[2] (detect).id: ")
    assert "steps[0]" in again
