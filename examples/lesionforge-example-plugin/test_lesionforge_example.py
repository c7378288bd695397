"""What every plugin package should test: the contract of its roles, one rule a test."""

import pytest

from lesionforge.testing import contract_rules

RULES = [
    pytest.param(rule, id=f"{expression}: {rule.name}")
    for expression in ("ellipses(size=32)", "sharpness")
    for rule in contract_rules(expression)
]


@pytest.mark.parametrize("rule", RULES)
def test_contract(rule):
    rule.check()
