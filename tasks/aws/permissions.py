"""Whether AWS would let us: IAM's own simulation of our policies, which changes nothing."""

from __future__ import annotations

import re

from tasks.clients import Clients
from tasks.contract import Need
from tasks.errors import ActionFailed

_ASSUMED = re.compile(r"arn:(aws[a-z-]*):sts::(\d{12}):assumed-role/([^/]+)/.+")
_NOT_ASKED = "it changes nothing; allow it iam:SimulatePrincipalPolicy to have the rights looked at beforehand"


def rights(actions: tuple[str, ...], region: str, endpoint: str | None, clients: Clients) -> Need:
    """Ask IAM whether our own identity may do these, such as 'route53:ChangeResourceRecordSets'.

    Resource policies, permission boundaries of a session and conditions on the request are not seen. Where IAM cannot
    be asked (no right to simulate, an emulator without it, a role behind a path) that is said, and is no problem.
    Source: STS GetCallerIdentity, IAM SimulatePrincipalPolicy.
    """
    what = f"right to {', '.join(actions)}"
    try:
        arn = clients.aws("sts", region, endpoint).get_caller_identity()["Arn"]
        assumed = _ASSUMED.fullmatch(arn)
        if assumed:
            arn = f"arn:{assumed[1]}:iam::{assumed[2]}:role/{assumed[3]}"
        answer = clients.aws("iam", region, endpoint).simulate_principal_policy(
            PolicySourceArn=arn, ActionNames=list(actions)
        )
    except ActionFailed as error:
        return Need(what=what, found=f"not known, because {error.reason}", advice=_NOT_ASKED)
    denied = sorted(one["EvalActionName"] for one in answer["EvaluationResults"] if one["EvalDecision"] != "allowed")
    if not denied:
        return Need(what=what, found=f"allowed to {arn}")
    return Need(what=what, found=f"IAM denies {', '.join(denied)} to {arn}", problem=True, advice="add it to its policy")
