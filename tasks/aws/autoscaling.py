"""Scale an Auto Scaling group out, never in."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar

from pydantic import Field

from tasks.clients import Clients
from tasks.contract import Change, Frozen, Need, Plane
from tasks.errors import ActionFailed


class Instance(Frozen):
    """One instance of the group."""

    id: str = Field(description="Instance id.")
    lifecycle: str = Field(description="LifecycleState: Pending, InService, Terminating, …")
    health: str = Field(description="HealthStatus: Healthy or Unhealthy.")


class Fleet(Frozen):
    """An Auto Scaling group as AWS describes it."""

    group: str = Field(description="Name of the group.")
    desired: int = Field(description="Instances the group is to have.")
    min_size: int = Field(description="Fewest it may be told to have.")
    max_size: int = Field(description="Most it may be told to have.")
    in_service: int = Field(description="Instances that are InService and Healthy.")
    instances: tuple[Instance, ...] = Field(description="All its instances.")
    launches: bool = Field(description="Whether it may launch instances (process Launch is not suspended).")


class Scale(Change[Fleet]):
    """Scale an Auto Scaling group out and wait until its instances are in service.

    Never scales in: a group that is larger already is left as it is. Refuses when the group's max size is below what
    is wanted. Undo: the former size, unless somebody else has changed it since.
    Source: EC2 Auto Scaling API, DescribeAutoScalingGroups and SetDesiredCapacity.
    """

    name: ClassVar[str] = "aws.autoscaling.scale"
    budget: ClassVar[timedelta] = timedelta(minutes=3)
    interval: ClassVar[timedelta] = timedelta(milliseconds=500)
    libraries: ClassVar[tuple[str, ...]] = ("boto3",)
    reversible: ClassVar[bool] = True
    plane: ClassVar[Plane] = Plane.control

    region: str = Field(description="AWS region of the group.", examples=["us-west-2"])
    group: str = Field(description="Name of the Auto Scaling group.", examples=["checkout-west"])
    desired: int = Field(description="Instances wanted at least.", ge=1, examples=[3])
    endpoint: str | None = Field(None, description="Address of the API, for emulators; unset: AWS_ENDPOINT_URL or AWS.")

    @property
    def target(self) -> str:
        """The group; at an endpoint of its own it is another one."""
        return f"autoscaling:{self.region}/{self.group}" + (f" at {self.endpoint}" if self.endpoint else "")

    def by_hand(self) -> tuple[str, ...]:
        """Set the capacity, then look until the instances are in service."""
        return (self._set_by_hand(self.desired), self._look_by_hand("Instances[].LifecycleState"))

    def undo_by_hand(self, before: Fleet) -> tuple[str, ...]:
        """See that the capacity is still ours, then set the former one."""
        look = f"{self._look_by_hand('DesiredCapacity')}   # go on only if it says {self.desired}"
        return (look, self._set_by_hand(before.desired))

    @property
    def _where(self) -> str:
        return f"--region {self.region}" + (f" --endpoint-url {self.endpoint}" if self.endpoint else "")

    def _set_by_hand(self, desired: int) -> str:
        return f"aws autoscaling set-desired-capacity {self._where} --auto-scaling-group-name {self.group} --desired-capacity {desired}"

    def _look_by_hand(self, what: str) -> str:
        query = f"--query 'AutoScalingGroups[].{what}'"
        return f"aws autoscaling describe-auto-scaling-groups {self._where} --auto-scaling-group-names {self.group} {query}"

    def observe(self, clients: Clients) -> Fleet:
        """Describe the group."""
        answer = clients.aws("autoscaling", self.region, self.endpoint).describe_auto_scaling_groups(
            AutoScalingGroupNames=[self.group]
        )
        if not answer["AutoScalingGroups"]:
            raise ActionFailed(
                f"there is no Auto Scaling group '{self.group}' in {self.region}", attempted="DescribeAutoScalingGroups"
            )
        return _fleet(answer["AutoScalingGroups"][0])

    def preflight(self, clients: Clients) -> tuple[Need, ...]:
        """The group's limits and processes, and the right to change it."""
        from tasks.aws.permissions import rights

        fleet = self.observe(clients)
        room, launches = fleet.max_size >= self.desired, fleet.launches
        return (
            Need(
                what=f"max size of '{self.group}'", found=f"{fleet.max_size}, wanted {self.desired}", problem=not room,
                advice="" if room else "raise the group's MaxSize",
            ),
            Need(
                what=f"process Launch of '{self.group}'", found="runs" if launches else "suspended",
                problem=not launches, advice="" if launches else "resume it",
            ),
            rights(("autoscaling:SetDesiredCapacity",), self.region, self.endpoint, clients),
        )  # fmt: skip

    def done(self, state: Fleet) -> bool:
        """As many as wanted are in service."""
        return state.desired >= self.desired and state.in_service >= self.desired

    def underway(self, state: Fleet) -> bool:
        """The size is set and instances are on their way."""
        return state.desired >= self.desired

    def refuse(self, before: Fleet) -> str | None:
        """Refuse what the group does not allow."""
        if before.max_size < self.desired:
            return f"max size of '{self.group}' is {before.max_size}, wanted {self.desired}; raise the group's MaxSize"
        if not before.launches:
            return f"'{self.group}' may not launch instances: its process Launch is suspended; resume it"
        return None

    def explain(self, state: Fleet) -> str:
        """Say how many are in service."""
        waiting = ", ".join(f"{one.id} {one.lifecycle} {one.health}" for one in state.instances if not _serves(one))
        return f"{state.in_service} of {self.desired} in service, desired {state.desired}" + (
            f"; {waiting}" if waiting else ""
        )

    def describe(self, before: Fleet) -> str:
        """Say the size before and after."""
        return f"scale {self.group}: {before.desired} -> {max(before.desired, self.desired)} instances"

    def act(self, before: Fleet, clients: Clients) -> None:
        """Set the desired capacity, unless somebody has scaled out as far meanwhile."""
        if (
            self.observe(clients).desired < self.desired
        ):  # the API has no condition: look right before, as it could scale in
            self._set(clients, self.desired)

    def undo(self, before: Fleet, clients: Clients) -> None:
        """Set the former size, only if the present one is still ours."""
        now = self.observe(clients)
        if now.desired == before.desired:
            return
        if now.desired != self.desired:
            raise ActionFailed(
                f"'{self.group}' was {before.desired}, we set {self.desired}, now it is {now.desired}: "
                "someone else changed it, so it is left as it is",
                attempted="undo of SetDesiredCapacity",
            )
        self._set(clients, before.desired)

    def _set(self, clients: Clients, desired: int) -> None:
        clients.aws("autoscaling", self.region, self.endpoint).set_desired_capacity(
            AutoScalingGroupName=self.group, DesiredCapacity=desired, HonorCooldown=False
        )


def _serves(instance: Instance) -> bool:
    return instance.lifecycle == "InService" and instance.health.lower() == "healthy"


def _fleet(group: dict[str, Any]) -> Fleet:
    instances = tuple(
        Instance(id=one["InstanceId"], lifecycle=one["LifecycleState"], health=one["HealthStatus"])
        for one in group.get("Instances", ())
    )
    return Fleet(
        group=group["AutoScalingGroupName"],
        desired=group["DesiredCapacity"],
        min_size=group["MinSize"],
        max_size=group["MaxSize"],
        in_service=sum(map(_serves, instances)),
        instances=instances,
        launches="Launch" not in {one.get("ProcessName") for one in group.get("SuspendedProcesses", ())},
    )
