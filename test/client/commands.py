#!/usr/bin/python3
"""Drives a cloud with the unmodified openstack command: what its users type, in the order in which a day goes, and what they get.

Each command runs in this process (openstackclient's own main), so that a hundred of them take seconds. Usage: commands.py STATE_DIR [--guests]"""
import argparse
import contextlib
import importlib.util
import io
import json
import os
import sys
import tempfile
import time
import uuid

from openstackclient import shell
from openstackclient.common import clientmanager
from openstackclient.volume import client as volume
from osc_lib import clientmanager as base

COUNT = 0


class Failed(Exception):
    pass


def forget():
    """Clients are cached on the class, for the one command that a process usually runs."""
    for kind in (clientmanager.ClientManager, base.ClientManager):
        for value in vars(kind).values():
            if isinstance(value, base.ClientCache):
                value._handle = None
    for old in ("1", "2"):  # entries that it deletes at its first use, and fails when they are gone
        volume.API_VERSIONS.setdefault(old, "")


def run(cloud, words):
    global COUNT
    COUNT += 1
    forget()
    os.environ.pop("OS_CLOUD", None)
    out, err = io.StringIO(), io.StringIO()
    began = time.time()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = shell.OpenStackShell().run(["--os-cloud", cloud, *words])
        except SystemExit as e:
            code = e.code
    print("%5.2f s  %s  openstack %s" % (time.time() - began, cloud, " ".join(words)), flush=True)
    return code, out.getvalue(), err.getvalue()


def do(*words, cloud="demo"):
    """A command that must succeed; gives its text."""
    code, out, err = run(cloud, words)
    if code:
        raise Failed("openstack %s: exit %s\n%s%s" % (" ".join(words), code, out, err))
    return out


def get(*words, cloud="demo"):
    """A command that must succeed; gives its -f json."""
    return json.loads(do(*words, "-f", "json", cloud=cloud))


def refuse(text, *words, cloud="demo"):
    """A command that must fail with a sentence that holds text."""
    code, out, err = run(cloud, words)
    if not code:
        raise Failed("openstack %s succeeded, which it should not:\n%s" % (" ".join(words), out))
    if text.lower() not in (out + err).lower():
        raise Failed("openstack %s failed without saying %r:\n%s%s" % (" ".join(words), text, out, err))


def check(what, ok):
    if not ok:
        raise Failed(what)


PATIENCE = 900  # seconds; a guest may boot under emulation on a busy machine


def eventually(what, ok):
    """Asks until ok is true and gives what it gave."""
    began = time.time()
    while True:
        got = ok()
        if got:
            return got
        check(what, time.time() - began < PATIENCE)
        time.sleep(0.5)


def wait(server, status):
    began = time.time()
    while True:
        s = get("server", "show", server)
        if s["status"] == status and not s["OS-EXT-STS:task_state"]:
            return s
        check(f"server {server} is {s['status']} ({s.get('fault')}), not {status}", s["status"] != "ERROR" and time.time() - began < PATIENCE)
        time.sleep(0.2)


def identity():
    token = get("token", "issue")
    check("the token names no project", token["project_id"])
    types = {c["Type"] for c in get("catalog", "list")}
    check(f"the catalog has {types}", {"identity", "compute", "image", "network", "placement"} <= types)
    do("project", "create", "p1", "--description", "first", cloud="admin")
    do("user", "create", "u1", "--password", "pw", "--project", "p1", cloud="admin")
    do("role", "add", "--project", "p1", "--user", "u1", "member", cloud="admin")
    rows = get("role", "assignment", "list", "--project", "p1", "--names", cloud="admin")
    check(f"assignments {rows}", any(r["Role"] == "member" and r["User"].startswith("u1") for r in rows))
    check("project list", "p1" in {p["Name"] for p in get("project", "list", cloud="admin")})
    check("role list", {"admin", "member", "reader"} <= {r["Name"] for r in get("role", "list", cloud="admin")})
    refuse("403", "user", "list")
    refuse("409", "project", "create", "p1", cloud="admin")
    do("role", "remove", "--project", "p1", "--user", "u1", "member", cloud="admin")
    do("user", "delete", "u1", cloud="admin")
    do("project", "delete", "p1", cloud="admin")


def images(folder, guest):
    raw, back = os.path.join(folder, "i.raw"), os.path.join(folder, "back.raw")
    with open(raw, "wb") as f:
        f.write(b"k" * (3 << 20))
    made = get("image", "create", "small-raw", "--file", raw, "--disk-format", "raw", "--public", "--property", "os_distro=none", cloud="admin")
    shown = get("image", "show", "small-raw")
    check(f"image {shown}", shown["status"] == "active" and shown["size"] == 3 << 20 and shown["checksum"])
    do("image", "save", "--file", back, made["id"])
    check("the saved image differs", open(raw, "rb").read() == open(back, "rb").read())
    do("image", "set", "--property", "colour=red", "--min-ram", "16", made["id"], cloud="admin")
    check("image list", "small-raw" in {i["Name"] for i in get("image", "list")})
    qcow = os.path.join(folder, "lie.qcow2")
    with open(qcow, "wb") as f:  # a version 2 header whose backing file is /etc/passwd
        f.write(b"QFI\xfb" + (2).to_bytes(4, "big") + (72).to_bytes(8, "big") + (11).to_bytes(4, "big") + (16).to_bytes(4, "big") + (1 << 30).to_bytes(8, "big") + bytes(40) + b"/etc/passwd")
    refuse("backing", "image", "create", "liar", "--file", qcow, "--disk-format", "qcow2")
    for i in get("image", "list", "--status", "queued"):
        do("image", "delete", i["ID"])
    refuse("no image", "image", "show", "nothing-of-the-kind")
    if guest:
        return get("image", "show", "guest")["id"]
    return made["id"]


def flavors():
    for name, cpus, ram, disk in (("m1.small", 1, 2048, 20), ("m1.large", 4, 8192, 80)):
        if name not in {f["Name"] for f in get("flavor", "list")}:
            do("flavor", "create", name, "--vcpus", str(cpus), "--ram", str(ram), "--disk", str(disk), cloud="admin")
    do("flavor", "create", "short-lived", "--vcpus", "1", "--ram", "64", "--disk", "1", "--property", "hw:cpu_policy=shared", cloud="admin")
    check("flavor properties", get("flavor", "show", "short-lived", cloud="admin")["properties"])
    refuse("403", "flavor", "delete", "short-lived")
    do("flavor", "delete", "short-lived", cloud="admin")


def keys_and_networks(folder):
    key = os.path.join(folder, "key")
    with open(key, "w") as f:
        os.fchmod(f.fileno(), 0o600)
        f.write(do("keypair", "create", "k1"))
    check("the private key", "PRIVATE KEY" in open(key).read())
    check("keypair list", "k1" in {k["Name"] for k in get("keypair", "list")})
    if "private-net" not in {n["Name"] for n in get("network", "list")}:
        do("network", "create", "private-net")
        do("subnet", "create", "private-v4", "--network", "private-net", "--subnet-range", "198.18.4.0/24")
    check("subnet list", get("subnet", "list"))
    do("security", "group", "create", "web")
    do("security", "group", "rule", "create", "web", "--protocol", "tcp", "--dst-port", "80")
    do("security", "group", "rule", "create", "web", "--protocol", "icmp")
    check("rules", len(get("security", "group", "rule", "list", "web")) >= 3)
    port = get("port", "create", "spare", "--network", "private-net")
    check("port address", port["fixed_ips"])
    do("port", "set", "--name", "renamed", port["id"])
    do("port", "delete", port["id"])
    if get("port", "list", "--network", "private-net"):
        refuse("in use", "network", "delete", "private-net")


def servers(image, folder, guests):
    data = os.path.join(folder, "user-data")
    with open(data, "w") as f:
        f.write("#!/bin/sh\necho user-data-ran > /dev/console\n")
    do("server", "create", "--flavor", "m1.small", "--image", image, "--network", "private-net", "--key-name", "k1", "--user-data", data,
       "--security-group", "web", "--security-group", "default", "--config-drive", "true", "--property", "role=first", "--wait", "one")
    one = wait("one", "ACTIVE")
    check(f"server {one}", one["key_name"] == "k1" and "private-net" in str(one["addresses"]) and one["config_drive"] and "first" in str(one["properties"]))
    do("server", "create", "--flavor", "m1.small", "--image", image, "--network", "private-net", "--min", "2", "--max", "2", "--availability-zone", "nova", "pair")
    for n in ("pair-1", "pair-2"):
        wait(n, "ACTIVE")
    check("server list", {"one", "pair-1", "pair-2"} <= {s["Name"] for s in get("server", "list")})
    check("server list --long --all", len(get("server", "list", "--long", "--all-projects", cloud="admin")) >= 3)
    do("server", "stop", "one")
    wait("one", "SHUTOFF")
    do("server", "start", "one")
    wait("one", "ACTIVE")
    do("server", "reboot", "--soft", "--wait", "one")
    wait("one", "ACTIVE")
    do("server", "reboot", "--hard", "--wait", "one")
    wait("one", "ACTIVE")
    do("server", "resize", "--flavor", "m1.large", "one")
    wait("one", "VERIFY_RESIZE")
    do("server", "resize", "revert", "one")
    check("flavor after revert", "m1.small" in str(wait("one", "ACTIVE")["flavor"]))
    do("server", "resize", "--flavor", "m1.large", "one")
    wait("one", "VERIFY_RESIZE")
    do("server", "resize", "confirm", "one")
    check("flavor after confirm", "m1.large" in str(wait("one", "ACTIVE")["flavor"]))
    do("server", "image", "create", "--name", "my-snapshot", "--wait", "one")
    check("snapshot", get("image", "show", "my-snapshot")["status"] == "active")
    for there, back, status in (("pause", "unpause", "PAUSED"), ("suspend", "resume", "SUSPENDED"), ("rescue", "unrescue", "RESCUE"), ("shelve", "unshelve", "SHELVED_OFFLOADED")):
        do("server", there, "pair-1")
        wait("pair-1", status)
        do("server", back, "pair-1")
        wait("pair-1", "ACTIVE")
    do("server", "lock", "pair-1")
    do("server", "unlock", "pair-1")
    do("server", "set", "--property", "a=b", "--name", "renamed", "pair-1")
    do("server", "set", "--name", "pair-1", "renamed")
    eventually("the console log stays empty", lambda: do("console", "log", "show", "one").strip())
    url = get("console", "url", "show", "one")["url"]
    check(f"console url {url}", "token" in url)
    events = get("server", "event", "list", "one")
    check(f"events {events}", {"create", "stop", "start", "reboot", "resize"} <= {e["Action"] for e in events})
    do("server", "event", "show", "one", events[-1]["Request ID"])
    do("server", "create", "--flavor", "m1.large", "--image", "my-snapshot", "--network", "private-net", "--wait", "from-snapshot")
    wait("from-snapshot", "ACTIVE")
    do("server", "delete", "--wait", "from-snapshot", "pair-1", "pair-2")
    do("image", "delete", "my-snapshot")
    refuse("no server", "server", "show", "pair-1")


def refusals(image):
    """Failures explain themselves: the right status and a sentence that helps."""
    base = ["server", "create", "--flavor", "m1.small", "--image", image, "--network", "private-net"]
    refuse("no image", "server", "create", "--flavor", "m1.small", "--image", "missing", "--network", "private-net", "x")
    refuse("no flavor", "server", "create", "--flavor", "missing", "--image", image, "--network", "private-net", "x")
    refuse("key", *base, "--key-name", "missing", "x")
    refuse("zone", *base, "--availability-zone", "missing", "x")
    refuse("quota", *base, "--min", "50", "--max", "50", "x")
    do("flavor", "create", "impossible", "--vcpus", "1", "--ram", "64", "--disk", "1", "--property", "trait:CUSTOM_UNICORN=required", cloud="admin")
    made = get("server", "create", "--flavor", "impossible", "--image", image, "--network", "private-net", "nowhere")
    eventually("the server that fits nowhere is not in ERROR", lambda: get("server", "show", made["id"])["status"] == "ERROR")
    fault = get("server", "show", made["id"])["fault"]["message"]
    check(f"the fault does not name the constraint: {fault}", "UNICORN" in fault and "host" in fault)
    do("server", "delete", "--wait", made["id"])
    do("flavor", "delete", "impossible", cloud="admin")


def operator():
    host = get("hypervisor", "list", cloud="admin")[0]
    check("hypervisor show", get("hypervisor", "show", host["Hypervisor Hostname"], cloud="admin")["state"] == "up")
    check("hypervisor stats", get("hypervisor", "stats", "show", cloud="admin")["count"] >= 1)
    rows = get("compute", "service", "list", "--service", "nova-compute", cloud="admin")
    name = rows[0]["Host"]
    do("compute", "service", "set", "--disable", "--disable-reason", "looking", name, "nova-compute", cloud="admin")
    check("disabled", get("compute", "service", "list", "--host", name, "--service", "nova-compute", cloud="admin")[0]["Status"] == "disabled")
    do("compute", "service", "set", "--enable", name, "nova-compute", cloud="admin")
    check("zones", "nova" in {z["Zone Name"] for z in get("availability", "zone", "list", "--compute")})
    project = get("token", "issue")["project_id"]
    do("quota", "set", "--instances", "12", project, cloud="admin")
    shown = json.dumps(get("quota", "show", project, cloud="admin"))
    check(f"quota show {shown}", '"instances": 12' in shown or '"Resource": "instances", "Limit": 12' in shown)
    check("limits", get("limits", "show", "--absolute"))


def placement():
    """What an operator does with resource providers, beside the hosts that are there."""
    if importlib.util.find_spec("osc_placement") is None:
        print("python3-osc-placement is not installed: its commands are left out")
        return

    def at(version, *words, how=get):
        return how("--os-placement-api-version", version, *words, cloud="admin")

    hosts = at("1.37", "resource", "provider", "list", "--resource", "VCPU=1")
    check(f"providers {hosts}", hosts)
    check("candidates", at("1.29", "allocation", "candidate", "list", "--resource", "VCPU=1", "--resource", "MEMORY_MB=64", "--required", "COMPUTE_NODE", "--limit", "1"))
    host = hosts[0]["uuid"]
    at("1.37", "resource", "provider", "inventory", "set", "--amend", "--resource", "VCPU:allocation_ratio=7", host, how=do)
    check("the ratio that was set", at("1.37", "resource", "provider", "inventory", "show", host, "VCPU")["allocation_ratio"] == 7)

    pool = at("1.20", "resource", "provider", "create", "pool")["uuid"]
    child = at("1.20", "resource", "provider", "create", "child", "--parent-provider", pool)["uuid"]
    at("1.2", "resource", "class", "create", "CUSTOM_SEAT", how=do)
    at("1.6", "trait", "create", "CUSTOM_QUIET", how=do)
    check("classes", "CUSTOM_SEAT" in {c["name"] for c in at("1.2", "resource", "class", "list")})
    check("traits", "CUSTOM_QUIET" in {t["name"] for t in at("1.6", "trait", "list", "--name", "startswith:CUSTOM_")})
    at("1.37", "resource", "provider", "inventory", "set", pool, "--resource", "CUSTOM_SEAT=10", "--resource", "CUSTOM_SEAT:max_unit=4", "--resource", "DISK_GB=100", how=do)
    at("1.37", "resource", "provider", "inventory", "set", child, "--resource", "CUSTOM_SEAT=2", how=do)
    at("1.37", "resource", "provider", "inventory", "class", "set", child, "CUSTOM_SEAT", "--total", "3", how=do)
    at("1.6", "resource", "provider", "trait", "set", pool, "--trait", "CUSTOM_QUIET", how=do)
    aggregate = str(uuid.uuid4())
    at("1.19", "resource", "provider", "aggregate", "set", pool, "--aggregate", aggregate, "--generation", str(at("1.19", "resource", "provider", "show", pool)["generation"]), how=do)
    found = {p["uuid"] for p in at("1.24", "resource", "provider", "list", "--member-of", aggregate, "--required", "CUSTOM_QUIET", "--resource", "CUSTOM_SEAT=2")}
    check(f"providers in the aggregate: {found}", found == {pool})
    check("the tree", {p["uuid"] for p in at("1.14", "resource", "provider", "list", "--in-tree", child)} == {pool, child})

    consumer, project = str(uuid.uuid4()), get("token", "issue", cloud="admin")["project_id"]
    at("1.28", "resource", "provider", "allocation", "set", consumer, "--project-id", project, "--user-id", "someone",
       "--allocation", f"rp={pool},CUSTOM_SEAT=4,DISK_GB=10", "--allocation", f"rp={child},CUSTOM_SEAT=1", how=do)
    held = {a["resource_provider"]: a["resources"] for a in at("1.28", "resource", "provider", "allocation", "show", consumer)}
    check(f"allocations {held}", held == {pool: {"CUSTOM_SEAT": 4, "DISK_GB": 10}, child: {"CUSTOM_SEAT": 1}})
    usage = {u["resource_class"]: u["usage"] for u in at("1.9", "resource", "usage", "show", project, "--user-id", "someone")}
    check(f"usage {usage}", usage == {"CUSTOM_SEAT": 5, "DISK_GB": 10})
    refuse("exceed the capacity", "--os-placement-api-version", "1.28", "resource", "provider", "allocation", "set", str(uuid.uuid4()), "--project-id", project, "--user-id", "someone",
           "--allocation", f"rp={child},CUSTOM_SEAT=3", cloud="admin")
    refuse("violate inventory constraints", "--os-placement-api-version", "1.28", "resource", "provider", "allocation", "set", str(uuid.uuid4()), "--project-id", project,
           "--user-id", "someone", "--allocation", f"rp={pool},CUSTOM_SEAT=5", cloud="admin")
    refuse("has allocations", "resource", "provider", "delete", child, cloud="admin")
    refuse("in use", "--os-placement-api-version", "1.5", "resource", "provider", "inventory", "delete", pool, cloud="admin")
    refuse("403", "resource", "provider", "list")
    at("1.28", "resource", "provider", "allocation", "unset", consumer, "--provider", child, how=do)
    at("1.28", "resource", "provider", "allocation", "delete", consumer, how=do)
    refuse("child", "resource", "provider", "delete", pool, cloud="admin")
    for provider in (child, pool):
        at("1.37", "resource", "provider", "delete", provider, how=do)
    at("1.2", "resource", "class", "delete", "CUSTOM_SEAT", how=do)
    at("1.6", "trait", "delete", "CUSTOM_QUIET", how=do)


def accounts():
    """What an administrator of accounts does besides making projects and users."""
    do("project", "create", "p2", "--tag", "t", "--property", "k=v", cloud="admin")
    do("project", "set", "p2", "--tag", "u", cloud="admin")
    do("project", "set", "p2", "--remove-tag", "t", cloud="admin")
    check("project tags", get("project", "show", "p2", cloud="admin")["tags"] == ["u"])
    do("user", "create", "u2", "--password", "pw", "--ignore-password-expiry", cloud="admin")
    do("group", "create", "g2", cloud="admin")
    do("group", "add", "user", "g2", "u2", cloud="admin")
    check("group list", [g["Name"] for g in get("group", "list", "--user", "u2", cloud="admin")] == ["g2"])
    do("role", "add", "--group", "g2", "--project", "p2", "reader", cloud="admin")
    rows = get("role", "assignment", "list", "--user", "u2", "--effective", "--names", cloud="admin")
    check(f"effective assignments {rows}", any(r["Role"] == "reader" and r["User"].startswith("u2") for r in rows))
    do("group", "remove", "user", "g2", "u2", cloud="admin")
    do("role", "create", "fixed", "--immutable", cloud="admin")
    refuse("immutable", "role", "delete", "fixed", cloud="admin")
    do("role", "set", "fixed", "--no-immutable", cloud="admin")
    do("role", "delete", "fixed", cloud="admin")
    do("application", "credential", "create", "robot", "--role", "reader", "--access-rules", '[{"path": "/v2.1/servers", "method": "GET", "service": "compute"}]')
    check("access rules", [r["Path"] for r in get("access", "rule", "list")] == ["/v2.1/servers"])
    do("application", "credential", "delete", "robot")
    for kind, name in (("group", "g2"), ("user", "u2"), ("project", "p2")):
        do(kind, "delete", name, cloud="admin")


def wires():
    """Options of networks, ports, routers and groups: what clients send of their own accord and what they ask for."""
    do("network", "create", "plain", "--no-share", "--internal", "--no-default", "--enable-port-security", "--tag", "t")
    refuse("403", "network", "create", "mine-for-all", "--share")
    refuse("403", "network", "set", "plain", "--share")
    do("subnet", "create", "plain-v4", "--network", "plain", "--subnet-range", "198.18.8.0/24", "--gateway", "198.18.8.254", "--allocation-pool", "start=198.18.8.10,end=198.18.8.20")
    do("subnet", "set", "plain-v4", "--dns-nameserver", "198.18.8.9", "--host-route", "destination=198.18.9.0/24,gateway=198.18.8.7")
    shown = get("subnet", "show", "plain-v4")
    check(f"subnet {shown}", shown["dns_nameservers"] == ["198.18.8.9"] and shown["allocation_pools"] == [{"start": "198.18.8.10", "end": "198.18.8.20"}])
    do("subnet", "unset", "plain-v4", "--dns-nameserver", "198.18.8.9")
    do("subnet", "pool", "create", "pool", "--pool-prefix", "198.18.64.0/20", "--default-prefix-length", "26", "--no-share")
    check("a pool's prefix", get("subnet", "create", "pooled", "--network", "plain", "--subnet-pool", "pool")["cidr"] == "198.18.64.0/26")
    port = get("port", "create", "odd", "--network", "plain", "--fixed-ip", "subnet=plain-v4,ip-address=198.18.8.15", "--allowed-address", "ip-address=198.18.8.99")
    do("port", "set", "odd", "--mac-address", "12:22:33:44:55:66", cloud="admin")
    check("a port's MAC", get("port", "show", "odd")["mac_address"] == "12:22:33:44:55:66")
    do("network", "create", "outside", "--external", cloud="admin")
    do("subnet", "create", "outside-v4", "--network", "outside", "--subnet-range", "198.51.100.0/24", "--no-dhcp", cloud="admin")
    do("router", "create", "way")
    do("router", "set", "way", "--external-gateway", "outside")
    do("router", "add", "subnet", "way", "plain-v4")
    refuse("198.18.200.1", "router", "set", "way", "--route", "destination=198.18.10.0/24,gateway=198.18.200.1")
    address = get("floating", "ip", "create", "outside", "--port", port["id"])["floating_ip_address"]
    check("floating ip", get("floating", "ip", "show", address)["fixed_ip_address"] == "198.18.8.15")
    do("floating", "ip", "unset", "--port", address)
    do("floating", "ip", "delete", address)
    do("security", "group", "create", "loose", "--stateless")
    check("stateless", get("security", "group", "show", "loose")["stateful"] is False)
    do("security", "group", "set", "loose", "--stateful")
    do("port", "set", "odd", "--security-group", "loose")
    refuse("in use", "security", "group", "set", "loose", "--stateless")
    do("port", "delete", "odd")
    do("security", "group", "delete", "loose")
    do("router", "remove", "subnet", "way", "plain-v4")
    do("router", "delete", "way")
    for net in ("plain", "outside"):
        do("network", "delete", net, cloud="admin")
    do("subnet", "pool", "delete", "pool")


def attachments(image):
    """Interfaces that come and go, and what lists tell of a server that was resized and moved."""
    do("server", "create", "--flavor", "m1.small", "--image", image, "--network", "private-net", "wired")
    wait("wired", "ACTIVE")
    at = "--os-compute-api-version"
    for _ in range(2):
        do("server", "add", "network", "wired", "private-net")
    do("server", "remove", "network", "wired", "private-net")  # three interfaces, without a pause between them
    wait("wired", "ACTIVE")
    eventually("changes-before", lambda: "wired" in {s["Name"] for s in get(at, "2.66", "server", "list", "--changes-before", get("server", "show", "wired")["updated"])})
    do("server", "resize", "--flavor", "m1.large", "wired")
    wait("wired", "VERIFY_RESIZE")
    do("server", "resize", "confirm", "wired")
    wait("wired", "ACTIVE")
    moves = [m for m in get(at, "2.80", "server", "migration", "list", "--type", "resize", cloud="admin")]
    check(f"migrations {moves}", moves and moves[0]["Old Flavor"] and moves[0]["New Flavor"] and moves[0]["Old Flavor"] != moves[0]["New Flavor"])
    do(at, "2.73", "server", "lock", "wired", "--reason", "mine")
    check("lock reason", get(at, "2.73", "server", "show", "wired")["locked_reason"] == "mine")
    do("server", "unlock", "wired")
    do(at, "2.26", "server", "set", "wired", "--tag", "blue")
    check("tags", [s["Name"] for s in get(at, "2.26", "server", "list", "--tags", "blue")] == ["wired"])
    do("server", "delete", "wired")
    eventually("the server does not go", lambda: "wired" not in {s["Name"] for s in get("server", "list")})


def groupings():
    """Aggregates, server groups and key pairs of others."""
    host = get("hypervisor", "list", cloud="admin")[0]["Hypervisor Hostname"]
    do("aggregate", "create", "a1", "--zone", "z1", "--property", "ssd=true", cloud="admin")
    do("aggregate", "add", "host", "a1", host, cloud="admin")
    check("zones", "z1" in {z["Zone Name"] for z in get("availability", "zone", "list", "--compute")})
    do("aggregate", "set", "a1", "--no-property", cloud="admin")
    refuse("not empty", "aggregate", "delete", "a1", cloud="admin")
    do("aggregate", "remove", "host", "a1", host, cloud="admin")
    do("aggregate", "delete", "a1", cloud="admin")
    do("server", "group", "create", "apart", "--policy", "anti-affinity")
    check("server group", get("server", "group", "show", "apart")["name"] == "apart")
    do("server", "group", "delete", "apart")
    for version in ("2.1", "2.37", "2.79", "2.90"):
        check(f"hypervisors at {version}", get("--os-compute-api-version", version, "hypervisor", "list", cloud="admin")[0]["State"] == "up")
        check(f"services at {version}", get("--os-compute-api-version", version, "compute", "service", "list", cloud="admin")[0]["State"] == "up")


def tidy():
    for s in get("server", "list"):
        if s["Name"] != "demo":
            do("server", "delete", "--wait", s["ID"])
    do("keypair", "delete", "k1")
    do("security", "group", "delete", "web")
    do("image", "delete", "small-raw", cloud="admin")


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("state")
    p.add_argument("--guests", action="store_true", help="servers are real guests of the image 'guest'")
    args = p.parse_args()
    os.environ["OS_CLIENT_CONFIG_FILE"] = os.path.join(args.state, "clouds.yaml")
    began = time.time()
    try:
        with tempfile.TemporaryDirectory() as folder:
            identity()
            image = images(folder, args.guests)
            flavors()
            keys_and_networks(folder)
            servers(image, folder, args.guests)
            refusals(image)
            operator()
            placement()
            if not args.guests:
                accounts()
                wires()
                attachments(image)
                groupings()
            tidy()
    except Failed as e:
        sys.exit(f"FAILED after {COUNT} commands: {e}")
    print(f"{COUNT} commands of the openstack client did what they should in {time.time() - began:.0f} s")


main()
