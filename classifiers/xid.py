"""XIDs in kernel lines: what the policy of the GPU checks says of the number."""

import msgspec

from checks.gpu import xid_policy
from classifiers.base import Hit, Role

RULE = "nvrm-xid"
# Of XIDs in one log: a hardware fault explains the others; of program and driver faults the earlier explains the later
# (an illegal access, then the engine that could not be stopped); 43 says only that a program's fault stopped it.
_WEIGHT = {"hardware": 92, "driver": 82, "application": 82, "informational": 55, "unused": 50, "secondary": 30}
_STOPPED_BY_ITS_PROGRAM = 43
# Bookkeeping of a repair: named when it stands alone, outweighed by whatever failed.
_BOOKKEEPING = frozenset({63, 92, 156, 160})


def refined(hit: Hit) -> Hit | None:
    """The hit with the cause its XID stands for; other hits as they are. None for an XID that is no failure."""
    if hit.rule != RULE or not hit.fields.get("code", "").isdigit():
        return hit
    code = int(hit.fields["code"])
    meaning = xid_policy.meaning(code)
    if not meaning.cause:
        return None
    weight = _WEIGHT[meaning.fault]
    if code in _BOOKKEEPING:
        weight = _WEIGHT["informational"]
    elif code == _STOPPED_BY_ITS_PROGRAM:
        weight = 45
    role = Role.CASCADE if meaning.fault == "secondary" else Role.ROOT
    return msgspec.structs.replace(
        hit, cause=meaning.cause, role=role, weight=weight, advice=f"Xid {code}: {xid_policy.advice(code)}."
    )
