"""Carries out ezkl calls for the parent process: one JSON request per line in, one JSON answer per line out.

Started with the directory that holds the ezkl package and the parent's process id. It ends when its input ends and is
killed by the system when the thread that started it ends. Whatever ezkl prints goes to standard error; a marker line
after each call tells the parent where that call's text ends.
"""
import json
import os
import signal
import sys

MARKER = "\x1eend of call"


def die_with(parent):
    """Asks the system for a SIGKILL at the parent's end; where there is no such thing, end of input has to do."""
    try:
        import ctypes

        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    except (OSError, AttributeError):
        pass
    if os.getppid() != parent:
        os._exit(1)


def take_over_stdio():
    """Keeps the two ends of the conversation for this file alone."""
    requests = os.fdopen(os.dup(0), "r", encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    return requests, answers


def peak_rss_bytes():
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def gen_settings(ezkl, model, settings, run_args):
    args = ezkl.PyRunArgs()
    for name, value in run_args.items():
        setattr(args, name, tuple(value) if isinstance(value, list) else value)
    return ezkl.gen_settings(model, settings, py_run_args=args)


def calibrate(ezkl, data, model, settings, target, scales, lookup_safety_margin, max_logrows):
    return ezkl.calibrate_settings(
        data,
        model,
        settings,
        target,
        lookup_safety_margin=lookup_safety_margin,
        scales=scales,
        scale_rebase_multiplier=[1],
        max_logrows=max_logrows,
    )


OPERATIONS = {
    "gen_settings": gen_settings,
    "calibrate": calibrate,
    "compile": lambda ezkl, model, circuit, settings: ezkl.compile_circuit(model, circuit, settings),
    "gen_srs": lambda ezkl, srs, logrows: ezkl.gen_srs(srs, logrows),
    "setup": lambda ezkl, circuit, vk, pk, srs: ezkl.setup(circuit, vk, pk, srs_path=srs),
    "witness": lambda ezkl, data, circuit, output, vk, srs: ezkl.gen_witness(data, circuit, output, vk, srs),
    "mock": lambda ezkl, witness, circuit: ezkl.mock(witness, circuit),
    "prove": lambda ezkl, witness, circuit, pk, proof, srs: ezkl.prove(witness, circuit, pk, proof, srs_path=srs),
    "verify": lambda ezkl, proof, settings, vk, srs, reduced_srs: ezkl.verify(proof, settings, vk, srs, reduced_srs),
}


def carry_out(ezkl, request):
    operation = OPERATIONS[request.pop("op")]
    try:
        result = operation(ezkl, **request)
        answer = {"ok": True, "accepted": result is not False}
    except MemoryError:
        answer = {"ok": False, "panicked": False, "error": "out of memory"}
    except BaseException as error:  # a panic in ezkl is no Exception
        answer = {"ok": False, "panicked": type(error).__name__ == "PanicException", "error": str(error)}
    answer["peak_rss_bytes"] = peak_rss_bytes()
    return answer


def main():
    site, parent = sys.argv[1], int(sys.argv[2])
    die_with(parent)
    requests, answers = take_over_stdio()

    def say(answer):
        sys.stderr.flush()
        os.write(2, ("\n" + MARKER + "\n").encode())
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    sys.path.insert(0, site)
    try:
        import ezkl
    except ImportError as error:
        say({"ready": False, "error": str(error)})
        return
    say({"ready": True, "version": ezkl.__version__})
    for line in requests:
        say(carry_out(ezkl, json.loads(line)))


main()
