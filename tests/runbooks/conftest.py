import pytest

from tasks import registry
from tests.runbooks.actions import NAMES


@pytest.fixture(autouse=True, scope="package")
def _test_actions():
    registry.OURS.update(NAMES)
    registry.action_type.cache_clear()
    yield
    for name in NAMES:
        registry.OURS.pop(name)
    registry.action_type.cache_clear()
