"""The page of a run in the Prefect UI, as a browser shows it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageStat

from tests.browser.chromium import chromium, keep, render
from tests.prefect.conftest import Prefect, Run

pytestmark = pytest.mark.prefect
SETTLED = "--virtual-time-budget=20000"


def test_the_page_of_a_run_shows_the_runbooks_graph_and_what_became_of_it(
    ask: Callable[..., Run], prefect: Prefect, tmp_path: Path
) -> None:
    """FAILOVER_PICTURES=FOLDER keeps the picture there."""
    chromium()
    run = ask("gated")
    run.form().resume(decision="approve", name="ada", reason="it is dead")
    assert run.ended() == ("COMPLETED", "Recovered")
    address = f"{prefect.server.api.removesuffix('/api')}/runs/flow-run/{run.id}"
    page, _ = render(address, "--dump-dom", SETTLED)
    assert "Recovered" in page
    assert run.execution in page
    taken = tmp_path / "run.png"
    render(address, f"--screenshot={taken}", "--window-size=1300,560", SETTLED)
    with Image.open(taken) as image:
        assert max(ImageStat.Stat(image.convert("L")).stddev) > 10
    keep(taken, "prefect-run.png")
