"""What people do to the lab's provider, with the clients they use."""

from __future__ import annotations

from deployments.lab import Lab


def point_dns(lab: Lab, region: str) -> None:
    client = lab_client(lab, "route53", "us-east-1")
    record = {
        "Name": "checkout.lab.test.",
        "Type": "A",
        "TTL": 2,
        "ResourceRecords": [{"Value": lab.addresses.balancer(region).host}],
    }
    changes = {"Changes": [{"Action": "UPSERT", "ResourceRecordSet": record}]}
    zone = client.list_hosted_zones_by_name(DNSName="lab.test")["HostedZones"][0]["Id"]
    client.change_resource_record_sets(HostedZoneId=zone, ChangeBatch=changes)


def scale(lab: Lab, region: str, group: str, desired: int) -> None:
    client = lab_client(lab, "autoscaling", region)
    client.set_desired_capacity(AutoScalingGroupName=group, DesiredCapacity=desired)


def lab_client(lab: Lab, service: str, region: str):
    import boto3

    keys = lab.environment()
    return boto3.client(
        service,
        region_name=region,
        endpoint_url=keys["AWS_ENDPOINT_URL"],
        aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
    )
