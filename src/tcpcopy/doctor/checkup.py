"""All checks of one run, in the order in which a request meets what they look at."""

from __future__ import annotations

from tcpcopy.doctor.finding import Finding
from tcpcopy.doctor.plan import InterceptPlan, Plan


def check_tcpcopy(plan: Plan) -> list[Finding]:
    """Check this host for a tcpcopy."""
    return []


def check_intercept(plan: InterceptPlan) -> list[Finding]:
    """Check this host for an intercept."""
    return []
