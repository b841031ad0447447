"""The other side of `levels.rs`: what Barman's own compressors make of the same files.

Reads lines `CODEC WORD OUTPUT FILE...` on standard input; answers each with one line, `CPU_SECONDS SIZE_BYTES`
(CPU time of this process and of the commands it started), or `unavailable`. Needs a Python that has Barman.
"""

import os
import resource
import sys
import time
from types import SimpleNamespace

from barman.compression import compression_registry


def cpu_seconds():
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def compressor(codec, word):
    config = SimpleNamespace(compression=codec, compression_level=word)
    return compression_registry[codec](config, codec, None)


def answer(line):
    codec, word, output, *files = line.rstrip("\n").split("\t")
    try:
        chosen = compressor(codec, word)
        size_bytes = 0
        started = cpu_seconds()
        for name in files:
            chosen.compress(name, output)
            size_bytes += os.path.getsize(output)
        return "%.6f %d" % (cpu_seconds() - started, size_bytes)
    except (Exception, SystemExit):
        # python-snappy is not always there; pigz may be missing.
        return "unavailable"


for request in sys.stdin:
    print(answer(request), flush=True)
