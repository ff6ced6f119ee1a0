"""What engines say when they refuse a model or die of it, made readable: symptom, cause, fix.

All texts were seen with the versions in `requirements.lock`.
"""

import re
import signal
import textwrap

LONGEST_REASON = 400
LINES_KEPT = 3
# What is cut out of an engine's words, or put into their place.
NOISE = {
    # All: a name that every kind of error has.
    r"^RuntimeError: (?:NM: error: )?": "",
    # ONNX Runtime: the number and the name of the error, whose class has been named already.
    r"\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ": "",
    # All: the folder of the private copy that they were given, which is gone when this is read.
    r"(?:/[\w.-]+)*/engine-\w+/": "",
    # OpenVINO: where in its source it noticed. What it noticed comes behind that.
    r"Exception from [\w/.-]+:\d+:\s*": "",
    r"Check '.*?' failed at [\w/.-]+:\d+:\s*": "",
    # OpenVINO: a whole signature of an operator; its name is enough.
    r"While validating node '.*?' with friendly_name '(.*?)':\s*": r"\1: ",
    # ONNX Runtime: a place in its source, and mostly the signature of a function.
    r"[\w/.-]+\.(?:h|hpp|cc|cpp):\d+ (?:[\w<>&*:, ]+::\w+\([^()]*\)(?: const)? )?": "",
    # DeepSparse: the number of a type instead of its name.
    r"<unsupported ONNX type 10>": "fp16",
    r"<unsupported ONNX type 16>": "bf16",
}
DOING = {"prepare": "compiling", "run": "running", "run_many": "running"}


def refusal(words: str) -> str:
    """Return in one line why an engine has refused.

    Symptom: three lines of paths and signatures before the one that says what is wrong.
    Cause: engines put the places in their own source code into the messages of their exceptions.
    """
    for pattern, instead in NOISE.items():
        words = re.sub(pattern, instead, words, flags=re.DOTALL)
    return textwrap.shorten(words, LONGEST_REASON, placeholder=" ...")


def death(method: str, code: int | None, said: str) -> str:
    """Return in one line how and of what an engine's process has died.

    Symptom: the process ends without an exception; its last words are facts about the machine.
    Cause: DeepSparse prints those, an empty line, what was wrong, and pages of machine code; then
    it aborts, or exits with 1. Natively quantized models of other tools do that to it.

    Args:
        method: what the process was asked to do.
        code: its exit code, negative for a signal.
        said: what it has printed.
    """
    how = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
    last = said.partition("\nBacktrace:")[0].strip().split("\n\n")[-1]
    lines = [line.strip() for line in last.splitlines() if line.strip()][-LINES_KEPT:]
    words = (
        f"died while {DOING.get(method, method)} ({how}): {refusal(' '.join(lines)) or 'no word'}"
    )
    if how == "SIGKILL":
        return f"{words}. Something killed it, as Linux does when memory runs out."
    if "Traceback" in said:
        return words
    return f"{words}. That is a fault of the engine, which should refuse what it cannot run."
