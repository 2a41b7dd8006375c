#!/usr/bin/python3
"""Registers what a person wants to find in a new cloud (image, flavors, network, key pair, security group rules) and boots the demo server.

Uses the OpenStack SDK like any client. Finds what is there already; says what it does; ends with what to type next."""
import argparse
import os
import socket
import subprocess
import sys
import time

import openstack

FLAVORS = [("m1.tiny", 1, 512, 1), ("m1.small", 1, 2048, 20), ("m1.medium", 2, 4096, 40), ("m1.large", 4, 8192, 80), ("m1.xlarge", 8, 16384, 160)]
NETWORK, CIDR, SERVER, KEY = "private-net", os.environ.get("DEMO_CIDR", "10.77.0.0/24"), "demo", "demo-key"


def say(text):
    print("==> " + text, flush=True)


def ensure_image(admin, state, driver):
    found = admin.image.find_image("guest")
    if found and found.status == "active":
        return found
    if found:
        admin.image.delete_image(found)
    say("registering the image 'guest'")
    path = os.path.join(state, "guest", "guest.qcow2")
    if driver == "fake":
        path = os.path.join(state, "empty.raw")
        with open(path, "wb") as f:
            f.truncate(1 << 20)
    fmt = "raw" if path.endswith(".raw") else "qcow2"
    return admin.create_image("guest", filename=path, disk_format=fmt, container_format="bare", visibility="public", wait=True, min_ram=128)


def ensure_flavors(admin):
    have = {f.name for f in admin.compute.flavors(get_extra_specs=False)}
    for i, (name, cpus, ram, disk) in enumerate(FLAVORS):
        if name not in have:
            say(f"registering the flavor {name}")
            admin.compute.create_flavor(name=name, vcpus=cpus, ram=ram, disk=disk, flavor_id=str(i + 1))


def ensure_network(demo):
    net = demo.network.find_network(NETWORK)
    if not net:
        say(f"making the network {NETWORK} ({CIDR})")
        net = demo.network.create_network(name=NETWORK)
    if not list(demo.network.subnets(network_id=net.id)):
        demo.network.create_subnet(network_id=net.id, name=NETWORK + "-v4", ip_version=4, cidr=CIDR)
    return net


def ensure_rules(demo):
    project = demo.current_project_id
    group = next(iter(demo.network.security_groups(name="default", project_id=project)))
    have = {(r.protocol, r.port_range_min, r.remote_ip_prefix) for r in demo.network.security_group_rules(security_group_id=group.id)}
    for protocol, port in (("icmp", None), ("tcp", 22)):
        if (protocol, port, "0.0.0.0/0") not in have:
            say(f"letting {protocol}{'' if port is None else ' port %d' % port} in")
            demo.network.create_security_group_rule(security_group_id=group.id, direction="ingress", ethertype="IPv4", protocol=protocol,
                                                    port_range_min=port, port_range_max=port, remote_ip_prefix="0.0.0.0/0")


def ensure_key(demo, state):
    path = os.path.join(state, "demo_key")
    if not os.path.exists(path):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "demo", "-f", path], check=True)
    if not demo.compute.find_keypair(KEY):
        say(f"registering the key pair {KEY}")
        with open(path + ".pub") as f:
            demo.compute.create_keypair(name=KEY, public_key=f.read().strip())
    return path


def ensure_server(demo, image, net):
    server = demo.compute.find_server(SERVER)
    if server and demo.compute.get_server(server.id).status == "ERROR":
        say(f"removing the server '{SERVER}', which is in ERROR")
        demo.compute.delete_server(server.id)
        demo.compute.wait_for_delete(demo.compute.get_server(server.id), interval=1, wait=60)
        server = None
    if not server:
        say(f"booting the server '{SERVER}'")
        server = demo.compute.create_server(name=SERVER, image_id=image.id, flavor_id=demo.compute.find_flavor("m1.tiny").id,
                                            networks=[{"uuid": net.id}], key_name=KEY)
    elif demo.compute.get_server(server.id).status == "SHUTOFF":
        demo.compute.start_server(server.id)
    began = time.time()
    while True:
        server = demo.compute.get_server(server.id)
        if server.status == "ACTIVE":
            return server
        if server.status == "ERROR" or time.time() - began > 600:
            shown = demo.compute.get(f"/servers/{server.id}").json()["server"]
            text = shown.get("fault", {}).get("message", "it did not become ACTIVE within ten minutes")
            sys.exit(f"error: the server is {server.status}: {text}\n       kilonova explain server {server.id}")
        time.sleep(0.5)


def wait_for_ssh(address):
    began = time.time()
    while time.time() - began < 300:
        try:
            with socket.create_connection((address, 22), timeout=2) as s:
                if s.recv(4) == b"SSH-":
                    return
        except OSError:
            pass
        time.sleep(0.5)
    sys.exit(f"error: {address} does not answer on port 22 within five minutes; 'openstack console log show {SERVER}' shows its boot")


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--state", required=True, help="state directory of the cloud")
    p.add_argument("--driver", default="libvirt", help="libvirt or fake")
    p.add_argument("--down", default="make down", help="the command that stops the cloud")
    args = p.parse_args()
    admin, demo = openstack.connect(cloud="admin"), openstack.connect(cloud="demo")
    image = ensure_image(admin, args.state, args.driver)
    ensure_flavors(admin)
    net = ensure_network(demo)
    ensure_rules(demo)
    key = ensure_key(demo, args.state)
    server = ensure_server(demo, image, net)
    address = next(a["addr"] for a in server.addresses[NETWORK] if a["version"] == 4)
    say(f"server '{SERVER}' is ACTIVE at {address}")
    if args.driver != "fake":
        wait_for_ssh(address)
        say("it answers on SSH")
    print(f"""
Your cloud is up. Next:

  export OS_CLIENT_CONFIG_FILE={args.state}/clouds.yaml OS_CLOUD=demo
  openstack server list
  openstack server create --image guest --flavor m1.tiny --network {NETWORK} --key-name {KEY} --wait second""")
    if args.driver != "fake":
        print(f"""  ssh -i {key} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null kilo@{address}     (or on the console: kilo, password kilo)
  openstack console log show {SERVER}
  openstack console url show {SERVER}        (open it in a browser)""")
    print(f"""
  OS_CLOUD=admin openstack hypervisor list   (as the operator)
  {args.down:<42} (stop everything; '{args.down.replace("down", "up", 1)}' goes on where it stopped)""")


main()
