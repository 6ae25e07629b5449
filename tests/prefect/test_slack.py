"""A run that is started in the Prefect UI is told in Slack as any other, and `failover serve` tells what a run could not."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.lab.addresses import Endpoint
from deployments.lab.slack import TOKEN
from deployments.lab.slack_server import Fault, SlackServer
from deployments.slack_marks import Marks
from flows.anchors import anchors_in
from tests.prefect.conftest import RUNBOOKS, Prefect, asking, eventually, serving

pytestmark = pytest.mark.prefect


@pytest.fixture
def slack() -> Iterator[SlackServer]:
    server = SlackServer(Endpoint("127.0.0.1", 0))
    server.open()
    yield server
    server.close()


def test_what_a_run_could_not_tell_while_slack_was_down_serve_tells_when_it_is_back(
    prefect: Prefect, slack: SlackServer, world: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copy(RUNBOOKS / "gated.yaml", folder)
    text = (folder / "gated.yaml").read_text().replace("name: gated", "name: told")
    (folder / "gated.yaml").write_text(text + 'comms: {slack: "#incidents"}\n')
    with serving(folder, tmp_path / "journal.db", tmp_path / "log", PREFECT_API_URL=prefect.server.api,
                  SLACK_API_URL=slack.url, SLACK_BOT_TOKEN=TOKEN) as found:  # fmt: skip
        with asking(prefect, found, world) as press:
            run = press("told")
            form = run.form()
            eventually(lambda: "in the Prefect UI" in str(slack.workspace.seen()))
            assert f"/runs/flow-run/{run.id}" in str(slack.workspace.seen())
            (card,) = slack.workspace.seen()["incidents"]
            slack.suffer(Fault("down"))
            form.resume(decision="approve", name="ada", reason="go")
            assert run.ended(60) == ("COMPLETED", "Recovered")
            eventually(lambda: Marks(tmp_path / "slack").left() == [run.execution])
            assert "recovered" not in str(slack.workspace.seen())
            slack.suffer(Fault())
            eventually(lambda: Marks(tmp_path / "slack").left() == [], 60)
        (final,) = slack.workspace.seen()["incidents"]
        assert final["ts"] == card["ts"]
        assert "recovered" in final["text"]
        (anchor,) = {str(one) for one in anchors_in(str(final["blocks"]))}
        assert anchor in str(final["replies"][-1])
        pages = prefect.http.post("/artifacts/filter", json={"flow_runs": {"id": {"any_": [run.id]}}}).json()
        assert [anchor in one["data"] for one in pages if one["key"] == "failover-report"] == [True]
        numbers = [one["metadata"]["event_payload"]["number"] for one in final["replies"]]
        assert numbers == sorted(set(numbers))
        assert found.stop() == 0, found.said()
