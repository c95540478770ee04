"""The peers' side of taking turns: answers `run STEPS` lines on stdin with one JSON line of timings."""

import json
import resource
import sys
import time


def take_turns(step, work, version=None):
    """`step(i)` does the i-th unit of `work` (images, or floating-point operations)."""
    print(json.dumps({"ready": True, "version": version}), flush=True)
    for line in sys.stdin:
        words = line.split()
        if not words or words[0] != "run":
            break
        count = int(words[1])
        start = time.perf_counter()
        for i in range(count):
            step(i)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"rate": work * count / seconds, "seconds": seconds, "peak_bytes": peak}), flush=True)
