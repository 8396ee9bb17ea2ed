"""`python -m benchmarks.one_ingest PATH [options of ingest]`: loads a file; prints seconds, memory, the answer."""

import json
import os
import resource
import sys
import time
from io import StringIO

import django


def main(arguments: list[str]) -> int:
    """Times the command whole, from its arguments to its answer; Django, and Spark if it is to work, have started before."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()
    from django.core.management import call_command

    from ingestion import engines
    from ingestion.management.commands import ingest  # its imports are the start's, not the load's

    command = ingest.Command()
    if "--engine" in arguments:
        engines.make_ready(arguments[arguments.index("--engine") + 1])
    output = StringIO()
    begun = time.perf_counter()
    try:
        call_command(command, *arguments, "--again", "--json", stdout=output)
    except SystemExit as left:
        if left.code not in (0, 1):  # 1: more rejected than the threshold allows
            raise
    seconds = time.perf_counter() - begun
    unit = 1 if sys.platform == "darwin" else 1024
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) * unit
    print(json.dumps({"seconds": seconds, "peak_bytes": peak, "answer": json.loads(output.getvalue())}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
