"""What the proofs share: the labs of the integration tests, and the engineers of the acceptance tests."""

from tests.acceptance.conftest import engineer, newcomer
from tests.integration.conftest import grounds, world

__all__ = ["engineer", "grounds", "newcomer", "world"]
