"""Stands in for the `ezkl` program: its command lines, carried out by the wheel in the directory EZKL_SITE."""
import argparse
import os
import sys

sys.path.insert(0, os.environ["EZKL_SITE"])
import ezkl

if sys.argv[1:] == ["--version"]:
    print("ezkl", os.environ.get("EZKL_VERSION", ezkl.__version__))
    sys.exit()

parser = argparse.ArgumentParser(allow_abbrev=False)
commands = parser.add_subparsers(dest="command", required=True)


def command(name, *flags, switches=()):
    sub = commands.add_parser(name, allow_abbrev=False)
    for flag in flags:
        sub.add_argument("--" + flag)
    for switch in switches:
        sub.add_argument("--" + switch, action="store_true")


VISIBILITIES = ("input-visibility", "output-visibility", "param-visibility")
NUMBERS = ("input-scale", "param-scale", "decomp-base", "decomp-legs", "logrows")
command("gen-settings", "model", "settings-path", "check-mode", "lookup-range", *VISIBILITIES, *NUMBERS)
command(
    "calibrate-settings",
    *("data", "model", "settings-path", "target", "lookup-safety-margin", "scales", "scale-rebase-multiplier", "max-logrows"),
)
command("compile-circuit", "model", "compiled-circuit", "settings-path")
command("gen-srs", "srs-path", "logrows")
command("setup", "compiled-circuit", "vk-path", "pk-path", "srs-path")
command("gen-witness", "data", "compiled-circuit", "output", "vk-path", "srs-path")
command("mock", "witness", "model")
command("prove", "witness", "compiled-circuit", "pk-path", "proof-path", "srs-path", "check-mode")
command("verify", "proof-path", "settings-path", "vk-path", "srs-path", switches=["reduced-srs"])
args = parser.parse_args()


def numbers(text):
    return None if text is None else [int(number) for number in text.split(",")]


def carry_out():
    if args.command == "gen-settings":
        run_args = ezkl.PyRunArgs()
        for name in (*VISIBILITIES, *NUMBERS, "check-mode"):
            field = name.replace("-", "_")
            if getattr(args, field) is not None:
                value = getattr(args, field)
                setattr(run_args, field, int(value) if name in NUMBERS else value)
        if args.lookup_range is not None:
            run_args.lookup_range = tuple(int(bound) for bound in args.lookup_range.split("->"))
        return ezkl.gen_settings(args.model, args.settings_path, py_run_args=run_args)
    if args.command == "calibrate-settings":
        return ezkl.calibrate_settings(
            args.data,
            args.model,
            args.settings_path,
            args.target,
            lookup_safety_margin=float(args.lookup_safety_margin),
            scales=numbers(args.scales),
            scale_rebase_multiplier=numbers(args.scale_rebase_multiplier),
            max_logrows=args.max_logrows and int(args.max_logrows),
        )
    if args.command == "compile-circuit":
        return ezkl.compile_circuit(args.model, args.compiled_circuit, args.settings_path)
    if args.command == "gen-srs":
        return ezkl.gen_srs(args.srs_path, int(args.logrows))
    if args.command == "setup":
        return ezkl.setup(args.compiled_circuit, args.vk_path, args.pk_path, srs_path=args.srs_path)
    if args.command == "gen-witness":
        assert args.data.startswith("@"), args.data
        return ezkl.gen_witness(args.data[1:], args.compiled_circuit, args.output, args.vk_path, args.srs_path)
    if args.command == "mock":
        return ezkl.mock(args.witness, args.model)
    if args.command == "prove":
        return ezkl.prove(args.witness, args.compiled_circuit, args.pk_path, args.proof_path, srs_path=args.srs_path)
    return ezkl.verify(args.proof_path, args.settings_path, args.vk_path, args.srs_path, args.reduced_srs)


try:
    carry_out()
except RuntimeError as error:
    sys.exit(f"Error: {error}")
