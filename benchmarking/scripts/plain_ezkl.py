#!/usr/bin/env python3
"""The ezkl calls that one shard takes, made from a plain script: what the service is compared with.

    plain_ezkl.py JOB       JOB: a JSON file, see below

    { "site": directory that holds the ezkl package,      "directory": where files go,
      "model": ONNX file,          "samples": calibration data,     "input": the input to prove, both ezkl's input_data,
      "run_args": { name: value }, "target": "resources" | "accuracy",
      "scales": [..] | null,       "lookup_safety_margin": number,  "logrows": int | null: overrides the calibrated one,
      "srs": path with {logrows} in it }

Prints one JSON object a line: {"step": NAME, "seconds": TIME OF THE CALL, ...} as soon as the step is done. The SRS must be
there: making one is no part of what is compared.
"""

import json
import os
import sys
import time


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        job = json.load(file)
    sys.path.insert(0, job["site"])
    # ezkl prints to standard output at will; this script's lines must stay its own.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def timed(step, call, *arguments, **options):
        started = time.perf_counter()
        result = call(*arguments, **options)
        say(step=step, seconds=time.perf_counter() - started, accepted=result is not False)
        return result

    def say(**answer):
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    started = time.perf_counter()
    import ezkl

    say(step="import", seconds=time.perf_counter() - started, accepted=True)

    def path(name):
        return os.path.join(job["directory"], name)

    model, settings, circuit = job["model"], path("settings.json"), path("circuit.ezkl")
    vk, pk, witness, proof = path("vk.key"), path("pk.key"), path("witness.json"), path("proof.json")
    arguments = ezkl.PyRunArgs()
    for name, value in job["run_args"].items():
        setattr(arguments, name, value)

    timed("settings", ezkl.gen_settings, model, settings, py_run_args=arguments)
    timed(
        "calibrate",
        ezkl.calibrate_settings,
        job["samples"],
        model,
        settings,
        job["target"],
        lookup_safety_margin=job["lookup_safety_margin"],
        scales=job["scales"],
        scale_rebase_multiplier=[1],
    )
    with open(settings, encoding="utf-8") as file:
        calibrated = json.load(file)
    # ezkl lists these in random order, and its columns follow the list: in one order, equal circuits have equal keys.
    for unordered in ["required_range_checks", "required_lookups"]:
        calibrated[unordered].sort(key=lambda item: json.dumps(item, separators=(",", ":"), sort_keys=True))
    if job["logrows"] is not None:
        calibrated["run_args"]["logrows"] = job["logrows"]
    with open(settings, "w", encoding="utf-8") as file:
        json.dump(calibrated, file)
    srs = job["srs"].replace("{logrows}", str(calibrated["run_args"]["logrows"]))
    timed("compile", ezkl.compile_circuit, model, circuit, settings)
    timed("keys", ezkl.setup, circuit, vk, pk, srs_path=srs)
    timed("witness", ezkl.gen_witness, job["input"], circuit, witness)
    timed("prove", ezkl.prove, witness, circuit, pk, proof, srs_path=srs)
    timed("verify", ezkl.verify, proof, settings, vk, srs)


main()
