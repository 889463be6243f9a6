"""What one of several gateways admits of a tenant's calls. Pure.

Each gateway counts for itself, so that no call waits for another machine: of N, each admits an Nth. With N unchanged, all of
them together admit no more than the quota's rate, and at most N - 1 calls beyond its burst and N - 1 beyond its calls in
flight (each may always let in one). When N changes, gateways learn of it within two seconds, of one that died within six
or seven; until then they admit together at most twice the quota.
"""

from dataclasses import replace
from math import ceil

from roost_platform.domain.tenants import Quota


def share_of(quota: Quota, gateways: int) -> Quota:
    """The Nth part of what is counted per gateway; models and storage are counted in the database, for all together."""
    if gateways == 1:
        return quota
    rate = quota.requests_per_second / gateways
    burst = quota.burst or ceil(max(1.0, quota.requests_per_second))
    return replace(
        quota,
        requests_per_second=rate,
        burst=max(1, burst // gateways) if rate else 0,
        concurrent_requests=ceil(quota.concurrent_requests / gateways),
    )
