"""The runbooks and tiers that come with the program."""

from datetime import timedelta
from pathlib import Path

import pytest

from runbooks.loader import load
from runbooks.model import Mode
from runbooks.planner import examine, plan
from runbooks.problems import RunbookError
from runbooks.shipped import find, shipped
from runbooks.tiers import all_tiers, by_name


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_runbook_has_no_problems_and_no_warnings(name):
    found = examine(load(find(name)))
    assert (found.problems, found.warnings) == ((), ())
    assert load(find(name)).runbook.name == name


@pytest.mark.parametrize("mode", Mode)
def test_region_failover_fits_its_rto_with_its_gate(mode):
    made = plan(load(find("region-failover")), mode=mode, inputs={})
    assert made.critical_path.total < made.rto == timedelta(minutes=5)
    assert made.rpo == timedelta(minutes=1)
    assert ("gate go", timedelta(minutes=2)) in made.critical_path.parts or mode is Mode.drill


def test_region_failover_fences_before_it_promotes_and_one_gate_covers_both():
    made = plan(load(find("region-failover")), mode=Mode.live, inputs={"capacity": "4"})
    assert made.by_id["promote"].fenced_by == ("fence",)
    assert made.gate_by_name["go"].covers == ("fence", "promote")
    assert set(made.by_id["dns"].after) == {"promote", "scale"}
    assert made.by_id["scale"].arguments["desired"] == 4
    assert made.by_id["scale"].gates == ()


def test_region_failover_never_writes_a_password_down():
    made = plan(load(find("region-failover")), mode=Mode.live, inputs={})
    assert made.by_id["promote"].arguments["standby"]["password"] == "${env.FAILOVER_LAB_PASSWORD}"


def test_a_drill_of_region_failover_stays_in_its_own_lab():
    made = plan(load(find("region-failover")), mode=Mode.drill, inputs={})
    assert "127.77." not in str([step.arguments for step in made.steps])


def test_a_name_or_a_path_leads_to_a_file(tmp_path, monkeypatch):
    assert find("region-failover").name == "region-failover.yaml"
    assert find("some/where.yaml") == Path("some/where.yaml")
    assert find("mine.yml") == Path("mine.yml")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").write_text("x")
    assert find("mine") == Path("mine")


@pytest.mark.parametrize("name", ["region-failver", "", "\x00", "x" * 5000])
def test_an_unknown_name_names_the_nearest_shipped_runbook(name):
    with pytest.raises(RunbookError) as caught:
        find(name)
    assert "region-failover" in str(caught.value)


def test_tiers_say_what_their_documents_say():
    found = {name: (tier.rto, tier.rpo, tier.drill) for name, tier in by_name().items()}
    minutes = timedelta(minutes=1)
    assert found["clients/premium"] == (15 * minutes, 5 * minutes, "monthly")
    assert found["clients/standard"] == (60 * minutes, 15 * minutes, "quarterly")
    assert found["clients/basic"] == (240 * minutes, 60 * minutes, "semi-annual")
    assert found["business/critical"] == (5 * minutes, minutes, None)
    assert found["business/low"] == (1440 * minutes, 1440 * minutes, None)
    assert found["elasticsearch/region-failure"] == (240 * minutes, 60 * minutes, "annual")
    assert found["elasticsearch-functions/user-authentication"] == (5 * minutes, timedelta(0), "annual")
    assert found["industries/financial-services"] == (timedelta(seconds=30), timedelta(0), None)
    assert found["standby/hot"] == (None, None, "monthly")


def test_a_tier_without_a_number_says_why():
    for name, tier in by_name().items():
        assert (tier.rto is not None) or tier.says, name
    assert all(each.source for each in all_tiers().sets.values())


def test_the_way_home_is_named_by_the_way_out_and_asks_the_data_owner_before_it_drops_anything():
    assert load(find("region-failover")).runbook.failback == "region-failback"
    made = plan(load(find("region-failback")), mode=Mode.live, inputs={})
    assert made.by_id["rebuild"].gates == ("sign-off",)
    assert made.by_id["rebuild"].after == ("divergence",)
    assert made.gate_by_name["window"].covers == ("shift", "home")
    assert made.by_id["home"].fenced_by == ()
