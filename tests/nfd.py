"""NFD's image compatibility, as its Go types have it, and what its rules say of a node.

Written from kubernetes-sigs/node-feature-discovery v0.17.0: api/image-compatibility/v1alpha1/spec.go,
api/nfd/v1alpha1/types.go (GroupRule) and pkg/apis/nfd/nodefeaturerule/expression.go (evaluateMatchExpression).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

FEATURES = {
    **dict.fromkeys(("cpu.cpuid", "kernel.loadedmodule", "kernel.enabledmodule"), "flag"),
    **dict.fromkeys(("kernel.version", "cpu.model", "system.osrelease"), "attribute"),
    "pci.device": "instance",
}
NUMBER = {"Exists": 0, "DoesNotExist": 0, "Gt": 1, "Lt": 1}

Node = Mapping[str, Any]


def check(spec: Any) -> None:
    """Fail on a member, a type or a number of values that NFD's decoder or matcher would not take."""
    assert set(spec) == {"version", "compatibilities"}
    assert spec["version"] == "v1alpha1" and isinstance(spec["compatibilities"], list)
    for entry in spec["compatibilities"]:
        assert {"rules"} <= set(entry) <= {"rules", "weight", "tag", "description"}
        assert type(entry.get("weight", 0)) is int
        assert all(isinstance(entry.get(name, ""), str) for name in ("tag", "description"))
        assert isinstance(entry["rules"], list)
        for rule in entry["rules"]:
            assert {"name"} < set(rule) <= {"name", "matchFeatures", "matchAny"}
            assert isinstance(rule["name"], str)
            terms = list(rule.get("matchFeatures", []))
            for choice in rule.get("matchAny", []):
                assert set(choice) == {"matchFeatures"}
                terms += choice["matchFeatures"]
            assert terms
            for term in terms:
                _check_term(term)


def _check_term(term: Any) -> None:
    assert set(term) == {"feature", "matchExpressions"}
    assert term["feature"] in FEATURES and term["matchExpressions"]
    for name, expression in term["matchExpressions"].items():
        assert isinstance(name, str)
        assert {"op"} <= set(expression) <= {"op", "value"}
        values = expression.get("value", [])
        assert isinstance(values, list) and all(isinstance(value, str) for value in values)
        assert expression["op"] in (*NUMBER, "In", "InRegexp")
        assert len(values) == NUMBER.get(expression["op"], len(values) or 1)
        if expression["op"] in ("Gt", "Lt"):
            int(values[0])


def runs(entry: Any, node: Node) -> bool:
    """Whether all rules of a set match a node's features."""
    return all(_rule(rule, node) for rule in entry["rules"])


def _rule(rule: Any, node: Node) -> bool:
    if "matchAny" in rule and not any(_terms(choice["matchFeatures"], node) for choice in rule["matchAny"]):
        return False
    return _terms(rule.get("matchFeatures", []), node)


def _terms(terms: Any, node: Node) -> bool:
    return all(_term(term, node.get(term["feature"])) for term in terms)


def _term(term: Any, found: Any) -> bool:
    kind, expressions = FEATURES[term["feature"]], term["matchExpressions"]
    if kind == "instance":
        return any(_all(expressions, device) for device in found or ())
    return _all(expressions, dict.fromkeys(found or (), None) if kind == "flag" else found or {})


def _all(expressions: Any, values: Mapping[str, str | None]) -> bool:
    return all(_matches(expression, name in values, values.get(name)) for name, expression in expressions.items())


def _matches(expression: Any, valid: bool, value: str | None) -> bool:
    wanted = expression.get("value", [])
    if expression["op"] in ("Exists", "DoesNotExist"):
        return valid is (expression["op"] == "Exists")
    if not valid or value is None:
        return False
    if expression["op"] == "In":
        return value in wanted
    if expression["op"] == "InRegexp":
        return any(re.search(pattern, value) for pattern in wanted)
    return int(value) > int(wanted[0]) if expression["op"] == "Gt" else int(value) < int(wanted[0])
