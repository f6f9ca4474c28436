#!/usr/bin/env python3
"""Checks compose.yaml without a container engine: check_compose.py COMPOSE PROGRAMS

It must parse, refer to nothing that it does not define, and every command must be one that the built programs accept: each
is run with `--help` appended, which makes the argument parser read the rest first. Roles must make a whole chain.
"""

import re
import subprocess
import sys
from pathlib import Path

import yaml


def fail(message):
    sys.exit(f"compose.yaml: {message}")


def substitute(text):
    """`${NAME:-default}` as compose would with nothing in the environment."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(text))


def check_volumes(name, service, known):
    sources = [volume.split(":")[0] for volume in service.get("volumes", [])]
    for source in sources:
        if not source.startswith(("/", ".")) and source not in known:
            fail(f"{name} uses the volume {source}, which is not defined")
    return [source for source in sources if source.endswith("-data")]


def check_certificate(name, service):
    """Every service speaks TLS with a certificate of its own, which it can read and not change."""
    directory = service.get("environment", {}).get("SHARDPROOF_TLS")
    mounts = [volume.split(":") for volume in service.get("volumes", [])]
    found = [mount for mount in mounts if len(mount) == 3 and mount[1] == directory]
    if found != [[f"./certificates/{name}", directory, "ro"]]:
        fail(f"{name} has no certificate of its own mounted read-only where SHARDPROOF_TLS says")


def check_command(name, command, programs):
    program, *arguments = [substitute(part) for part in command]
    path = programs / program
    if not path.is_file():
        fail(f"{name} runs {program}, which is not among the programs")
    # A wrong option or value ends with 2 before the service would start; `--version` is read only when all else is right.
    outcome = subprocess.run([path, *arguments, "--version"], capture_output=True, text=True, timeout=30, check=False)
    if outcome.returncode != 0:
        fail(f"{name}: {program} refuses its arguments: {outcome.stderr.strip()}")
    return program, arguments


def main():
    compose_path, programs = Path(sys.argv[1]), Path(sys.argv[2])
    compose = yaml.safe_load(compose_path.read_text())
    services = compose["services"]
    roles, shards, data = [], None, []
    for name, service in services.items():
        data += check_volumes(name, service, compose.get("volumes", {}))
        for network in service.get("networks", []):
            if network not in compose.get("networks", {}):
                fail(f"{name} is on the network {network}, which is not defined")
        for other in service.get("depends_on", []):
            if other not in services:
                fail(f"{name} depends on {other}, which is not defined")
        if "build" in service:
            context = (compose_path.parent / service["build"]["context"]).resolve()
            if not (context / service["build"]["dockerfile"]).is_file():
                fail(f"{name}: no {service['build']['dockerfile']} in the build context")
        check_certificate(name, service)
        program, arguments = check_command(name, service["command"], programs)
        advertised = next((part.split("=")[1] for part in arguments if part.startswith("--advertise=")), "")
        port = arguments[1]
        if advertised != f"{name}:{port}":
            fail(f"{name} listens on port {port} but advertises `{advertised}`")
        if program == "worker":
            if arguments[2] not in services or arguments[3] != services[arguments[2]]["command"][2]:
                fail(f"{name} looks for its coordinator at {arguments[2]}:{arguments[3]}, where none is")
            if service["environment"]["SHARDPROOF_HEALTH_PORT"] != port:
                fail(f"{name}: the health check asks another port than {port}")
            roles.append(arguments[4])
        else:
            shards = int(arguments[2])
    expected = ["FIRST"] + ["MIDDLE"] * (shards - 2) + ["LAST"] if shards > 1 else ["SOLO"]
    if sorted(roles) != sorted(expected):
        fail(f"{shards} shards need the roles {expected}, found {roles}")
    if len(set(data)) != len(services):
        fail("two services share a data volume, or one has none")


if __name__ == "__main__":
    main()
