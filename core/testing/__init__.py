"""Contract tests that every plugin must pass, ours or a stranger's: public as ``lesionforge.testing``."""

from __future__ import annotations

from .contracts import Rule, assert_contract, contract_rules
from .specimens import disc_dataset

__all__ = ["Rule", "assert_contract", "contract_rules", "disc_dataset"]
