"""Public name of the contract tests, see :mod:`lesionforge.core.testing`."""

from .core.testing import Rule, assert_contract, contract_rules, disc_dataset

__all__ = ["Rule", "assert_contract", "contract_rules", "disc_dataset"]
