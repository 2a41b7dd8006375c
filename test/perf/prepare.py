#!/usr/bin/python3
"""Registers an image, a flavor and a network for a load tool in the cloud of OS_CLOUD, and prints their ids as shell variables."""
import os
import tempfile

import openstack

cloud = openstack.connect(cloud=os.environ["OS_CLOUD"])
with tempfile.NamedTemporaryFile(suffix=".raw") as f:
    f.truncate(1 << 20)
    image = cloud.create_image("load-image", filename=f.name, disk_format="raw", container_format="bare", visibility="public", wait=True)
flavor = cloud.compute.create_flavor(name="load.nano", ram=64, vcpus=1, disk=1)
network = cloud.network.create_network(name="load-net")
cloud.network.create_subnet(network_id=network.id, ip_version=4, cidr="10.64.0.0/16")
cloud.network.update_quota(cloud.current_project_id, port=-1)
print(f"IMAGE={image.id} FLAVOR={flavor.id} NETWORK={network.id}")
