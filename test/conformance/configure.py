#!/usr/bin/python3
"""Makes a Tempest workspace for the cloud of OS_CLOUD: registers the images, flavors and external network that Tempest wants, then writes
etc/tempest.conf. What the cloud's catalog does not have is declared unavailable, so that Tempest skips it by itself."""
import argparse
import configparser
import os
import subprocess

import openstack

IMAGES = (("tempest-image", b"k" * (1 << 20)), ("tempest-image-alt", b"a" * (1 << 20)))
FLAVORS = (("tempest.nano", 64, 1), ("tempest.micro", 128, 1))
GUEST_FLAVORS = (("tempest.small", 144, 1), ("tempest.larger", 192, 2))


def ensure_images(cloud, path, guest):
    out = []
    for name, content in IMAGES:
        image = cloud.image.find_image(name)
        if not image and guest:
            image = cloud.create_image(name, filename=guest, disk_format="qcow2", container_format="bare", visibility="public", wait=True)
        elif not image:
            file = os.path.join(path, name + ".raw")
            with open(file, "wb") as f:
                f.write(content)
            image = cloud.create_image(name, filename=file, disk_format="raw", container_format="bare", visibility="public", wait=True)
        out.append(image.id)
    return out


def ensure_flavors(cloud, wanted):
    have = {f.name: f.id for f in cloud.compute.flavors(get_extra_specs=False)}
    for name, ram, disk in wanted:
        if name not in have:
            flavor = cloud.compute.create_flavor(name=name, ram=ram, vcpus=1, disk=disk)
            have[name] = flavor.id
            # On the fake driver a snapshot takes its time, so that a test can find it under way. Other drivers do not look at this.
            cloud.compute.create_flavor_extra_specs(flavor, {"fake:delay:snapshot": "5s"})
    return [have[name] for name, _, _ in wanted]


def ensure_external(cloud):
    net = cloud.network.find_network("tempest-external")
    if not net:
        net = cloud.network.create_network(name="tempest-external", **{"router:external": True})
        cloud.network.create_subnet(network_id=net.id, name="tempest-external-v4", ip_version=4, cidr="203.0.113.0/24", enable_dhcp=False)
        if any(e.alias == "auto-allocated-topology" for e in cloud.network.extensions()):
            cloud.network.put("/networks/" + net.id, json={"network": {"is_default": True}})
            cloud.network.create_subnet_pool(name="tempest-default-v4", is_shared=True, is_default=True, prefixes=["10.80.0.0/16"], default_prefix_length=26)
    return net.id


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("workspace")
    p.add_argument("--hosts", type=int, default=1)
    p.add_argument("--guests", metavar="IMAGE", help="servers are real guests, made of this image, that Tempest may log in to")
    args = p.parse_args()
    cloud = openstack.connect(cloud=os.environ["OS_CLOUD"])
    auth = cloud.config.get_auth_args()
    services = {s.type for s in cloud.identity.services()}
    if not os.path.isdir(args.workspace):
        subprocess.run(["tempest", "init", "--workspace-path", args.workspace + ".yaml", args.workspace], check=True, stdout=subprocess.DEVNULL, cwd=os.path.dirname(os.path.abspath(args.workspace)))
    images, flavors, external = ensure_images(cloud, args.workspace, args.guests), ensure_flavors(cloud, GUEST_FLAVORS if args.guests else FLAVORS), ensure_external(cloud)
    aliases = {e.alias for e in cloud.network.extensions()}
    # Tempest asks for the name that tags had when only networks had them.
    extensions = ",".join(sorted(aliases | ({"tag"} if "standard-attr-tag" in aliases else set())))
    filters = ("ComputeFilter", "ComputeCapabilitiesFilter", "ImagePropertiesFilter", "ServerGroupAntiAffinityFilter", "ServerGroupAffinityFilter",
               "SameHostFilter", "DifferentHostFilter")
    several, here = args.hosts > 1, os.path.abspath(args.workspace)
    sections = {
        "DEFAULT": {"log_dir": here + "/logs", "debug": False},
        "oslo_concurrency": {"lock_path": here + "/lock"},
        "auth": {"use_dynamic_credentials": True, "create_isolated_networks": True, "tempest_roles": "member", "admin_username": auth["username"],
                 "admin_password": auth["password"], "admin_project_name": auth["project_name"], "admin_domain_name": "Default"},
        "identity": {"uri_v3": auth["auth_url"], "auth_version": "v3", "region": cloud.config.get_region_name(), "v3_endpoint_type": "public",
                     "default_domain_id": "default"},
        "identity-feature-enabled": {"api_v2": False, "api_v3": True, "application_credentials": True, "access_rules": True},
        "service_available": {"nova": "compute" in services, "glance": "image" in services, "neutron": "network" in services,
                              "cinder": bool({"volumev3", "block-storage"} & services), "swift": False, "horizon": False},
        "compute": {"image_ref": images[0], "image_ref_alt": images[1], "flavor_ref": flavors[0], "flavor_ref_alt": flavors[1], "build_interval": 1,
                    "build_timeout": 600, "ready_wait": 0, "shelved_offload_time": 0, "min_compute_nodes": args.hosts, "max_microversion": "latest"},
        "service-clients": {"http_timeout": 300},
        "placement": {"max_microversion": "latest"},
        "validation": {"run_validation": bool(args.guests), "image_ssh_user": "root", "image_alt_ssh_user": "root", "ssh_timeout": 600, "ping_timeout": 600,
                       # "floating" also makes Tempest give each class of tests a network of its own.
                       "connect_method": "floating", "network_for_ssh": "tempest-external"},
        "compute-feature-enabled": {"disk_config": True, "hostname_fqdn_sanitization": True, "change_password": True, "console_output": True,
                                    "resize": True, "pause": True, "shelve": True, "shelve_migrate": several, "suspend": True,
                                    "cold_migration": several, "live_migration": several, "live_migrate_back_and_forth": several,
                                    "metadata_service": bool(args.guests), "block_migration_for_live_migration": several,
                                    "can_migrate_between_any_hosts": True, "vnc_console": True, "serial_console": False, "rescue": True,
                                    "stable_rescue": True, "enable_instance_password": True, "interface_attach": True, "snapshot": True,
                                    "personality": True, "config_drive": True, "scheduler_enabled_filters": ",".join(filters), "ide_bus": True,
                                    "nova_cert": False, "xenapi_apis": True, "unified_limits": False, "attach_encrypted_volume": False,
                                    "swap_volume": False, "volume_backed_live_migration": False, "volume_multiattach": False},
        "image": {"http_image": os.environ.get("HTTP_IMAGE", auth["auth_url"]), "disk_formats": "raw,ami,ari,aki"},
        "image-feature-enabled": {"import_image": True, "os_glance_reserved": True, "manage_locations": "HTTP_IMAGE" in os.environ},
        "network": {"public_network_id": external, "floating_network_name": "tempest-external", "project_network_cidr": "10.100.0.0/16",
                    "project_network_mask_bits": 28},
        "network-feature-enabled": {"api_extensions": extensions, "floating_ips": True, "ipv6": True,
                                    "ipv6_subnet_attributes": True, "port_security": True, "port_admin_state_change": True},
    }
    conf = configparser.RawConfigParser()
    conf.optionxform = str
    for name, options in sections.items():
        if name != "DEFAULT":
            conf.add_section(name)
        for key, value in options.items():
            conf.set(name, key, str(value))
    for d in ("lock", "logs"):
        os.makedirs(os.path.join(here, d), exist_ok=True)
    with open(os.path.join(here, "etc", "tempest.conf"), "w") as f:
        conf.write(f)


main()
