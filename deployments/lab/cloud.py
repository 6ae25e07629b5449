"""The provider: moto's server, made honest where it is not.

moto calls every instance in service and every DNS change in sync at once, and takes a desired capacity above the
maximum. Here an instance is Pending until the lab says that its process is healthy, a DNS change is PENDING for a
while and only then answered to resolvers, and the maximum is kept. What the lab itself needs is at /lab/…; at
/lab/changes it tells how many changes were accepted since its first day, so that one made twice is a fact.
"""

from __future__ import annotations

import argparse
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import boto3
import moto.autoscaling.models as autoscaling
from moto.autoscaling.exceptions import ValidationError
from moto.autoscaling.responses import AutoScalingResponse
from moto.backends import get_backend
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.moto_api._internal.models import moto_api_backend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

from .addresses import AWS_REGIONS, DNS_TTL, NODES, SERVICE_NAME, ZONE, Addresses, NodeName
from .route53 import Propagation

DESIRED: dict[NodeName, int] = {"east": 2, "west": 1}
MAX_SIZE = 6

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(prog="python -m deployments.lab.cloud")
    parser.add_argument("--lab", type=int, required=True)
    addresses = Addresses(parser.parse_args().lab)
    make_scaling_honest()
    propagation, scaled = Propagation(), count_scaling()
    propagation.install()
    application = Cloud(addresses, (propagation, scaled), DomainDispatcherApplication(create_backend_app))
    endpoint = addresses.cloud
    server = make_server(endpoint.host, endpoint.port, application, threaded=True, request_handler=QuietHandler)
    threading.Thread(target=application.build, daemon=True).start()
    server.serve_forever()


class QuietHandler(MotoRequestHandler):
    """Moto's, over connections that stay open and without a line of log a request."""

    protocol_version = "HTTP/1.1"

    def log_request(self, *_args: object) -> None:
        pass


class Cloud:
    """A WSGI application: the lab's own calls at /lab/…, moto for everything else.

    One request at a time, because moto's models are not made for threads.
    """

    def __init__(self, addresses: Addresses, changes: tuple[Propagation, Counter[str]], moto: Application) -> None:
        self._addresses = addresses
        self._propagation, self._scaled = changes
        self._moto = moto
        self._lock = threading.Lock()
        self._built = False

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        with self._lock:
            if not environ["PATH_INFO"].startswith("/lab/"):
                return list(self._moto(environ, start_response))
            return self._own(Request(environ))(environ, start_response)

    def build(self) -> None:
        """Make the first day: a group in each region, and the record that says east serves."""
        self._built = False
        for region in NODES:
            _create_group(self._addresses, region)
        _create_zone(self._addresses)
        self._built = True

    def _own(self, request: Request) -> Response:
        match request.method, request.path:
            case "GET", "/lab/world":
                return _json(self._world() if self._built else None)
            case "GET", "/lab/changes":
                own = 1  # the record of the first day
                return _json({"capacity": dict(self._scaled), "records": self._propagation.accepted - own})
            case "POST", "/lab/reset":
                moto_api_backend.reset()
                self._propagation.reset()  # after it, which forgets the zone's id
                self._scaled.clear()
                self._built = False
                threading.Thread(target=self.build, daemon=True).start()
                return _json({})
            case "POST", "/lab/instances":
                for region, instance, lifecycle, health in json.loads(request.get_data()):
                    _set_instance(region, instance, lifecycle, health)
                return _json({})
            case _:
                return Response("no such thing in the lab", 404)

    def _world(self) -> dict[str, Any]:
        """What the supervisor acts on: each group's instances, and the records that resolvers may see by now."""
        return {
            "groups": {region: _group(self._addresses, region) for region in NODES},
            "records": self._propagation.visible(),
        }


def make_scaling_honest() -> None:
    """New instances are Pending; a desired capacity outside the group's limits is refused, as AWS does."""
    state, group = autoscaling.InstanceState, autoscaling.FakeAutoScalingGroup
    create, set_desired = state.__init__, group.set_desired_capacity

    def pending(self: Any, *args: Any, **kwargs: Any) -> None:
        create(self, *args, **kwargs)
        self.lifecycle_state = "Pending"

    def bounded(self: Any, new_capacity: int | None) -> None:
        for name, size, wrong in (("max", self.max_size, int.__gt__), ("min", self.min_size, int.__lt__)):
            if new_capacity is not None and size is not None and wrong(new_capacity, size):
                where = "above max" if name == "max" else "below min"
                raise ValidationError(
                    f"New SetDesiredCapacity value {new_capacity} is {where} value {size} for the AutoScalingGroup."
                )
        set_desired(self, new_capacity)

    def counted(self: Any) -> list[Any]:  # a Pending instance counts, or each request would launch it anew
        return [known for known in self.instance_states if known.lifecycle_state in {"InService", "Pending"}]

    state.__init__ = pending  # type: ignore[method-assign]
    group.set_desired_capacity = bounded  # type: ignore[method-assign]
    group.active_instances = counted  # type: ignore[method-assign]


def count_scaling() -> Counter[str]:
    """Count the accepted calls of SetDesiredCapacity for each group; give the count, which goes on."""
    accepted: Counter[str] = Counter()
    answer = AutoScalingResponse.set_desired_capacity

    def counted(self: Any) -> Any:
        told = answer(self)
        accepted[self._get_param("AutoScalingGroupName")] += 1
        return told

    AutoScalingResponse.set_desired_capacity = counted  # type: ignore[method-assign]
    return accepted


def _client(service: str, addresses: Addresses, region: str) -> Any:
    # Dummy keys: moto takes any, and the environment may hold real ones.
    return boto3.client(
        service,
        endpoint_url=addresses.cloud_url,
        region_name=region,
        aws_access_key_id="lab",
        aws_secret_access_key="lab",  # noqa: S106
    )


def _create_group(addresses: Addresses, region: NodeName) -> None:
    aws = AWS_REGIONS[region]
    client = _client("autoscaling", addresses, aws)
    name = addresses.group(region)
    client.create_launch_configuration(LaunchConfigurationName=name, ImageId="ami-12c6146b", InstanceType="t3.small")
    client.create_auto_scaling_group(
        AutoScalingGroupName=name,
        LaunchConfigurationName=name,
        MinSize=1,
        MaxSize=MAX_SIZE,
        DesiredCapacity=DESIRED[region],
        AvailabilityZones=[f"{aws}a"],
    )


def _create_zone(addresses: Addresses) -> None:
    client = _client("route53", addresses, AWS_REGIONS["east"])
    zone = client.create_hosted_zone(Name=f"{ZONE}.", CallerReference="lab")["HostedZone"]["Id"]
    record = {
        "Name": f"{SERVICE_NAME}.",
        "Type": "A",
        "TTL": DNS_TTL,
        "ResourceRecords": [{"Value": addresses.balancer("east").host}],
    }
    client.change_resource_record_sets(
        HostedZoneId=zone, ChangeBatch={"Changes": [{"Action": "CREATE", "ResourceRecordSet": record}]}
    )


def _states(region: NodeName, name: str) -> Any:
    return get_backend("autoscaling")[DEFAULT_ACCOUNT_ID][AWS_REGIONS[region]].autoscaling_groups[name]


def _group(addresses: Addresses, region: NodeName) -> dict[str, Any]:
    group = _states(region, addresses.group(region))
    return {
        "desired": group.desired_capacity,
        "instances": {state.instance_id: state.lifecycle_state for state in group.instance_states},
    }


def _set_instance(region: NodeName, instance: str, lifecycle: str, health: str) -> None:
    group = _states(region, f"checkout-{region}")
    for state in group.instance_states:
        if state.instance_id == instance and state.lifecycle_state in {"Pending", "InService"}:
            state.lifecycle_state, state.health_status = lifecycle, health


def _json(content: object) -> Response:
    return Response(json.dumps(content), mimetype="application/json")


if __name__ == "__main__":
    main()
