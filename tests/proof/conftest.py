"""What the proofs share: the labs of the integration tests, and the engineers of the acceptance tests."""

from tests.acceptance.conftest import engineer, newcomer
from tests.integration.conftest import grounds, guarded, world

__all__ = ["engineer", "grounds", "guarded", "newcomer", "world"]
