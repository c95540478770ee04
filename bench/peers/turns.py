"""The peers' side of taking turns: answers `run STEPS` lines on stdin with one JSON line of timings."""

import json
import resource
import sys
import time


def take_turns(step, work, version=None):
    """`step(i)` does the i-th unit of `work` (images, or floating-point operations); a number it returns is told."""
    print(json.dumps({"ready": True, "version": version}), flush=True)
    for line in sys.stdin:
        words = line.split()
        if not words or words[0] != "run":
            break
        count = int(words[1])
        start = time.perf_counter()
        result = None
        for i in range(count):
            result = step(i)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        answer = {"rate": work * count / seconds, "seconds": seconds, "peak_bytes": peak}
        if isinstance(result, (int, float)):
            answer["result"] = result
        print(json.dumps(answer), flush=True)
