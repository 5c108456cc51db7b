"""`make bench`: the cost of a prediction on this machine, with the machine named."""

import os
import platform
import sys
import time

from benchmarks import predict

PARTS = {"in_process": predict.in_process, "over_http": predict.over_http}


def main() -> None:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    print(
        f"{now}, Python {platform.python_version()}, {os.cpu_count()} cores {platform.machine()}, "
        f"load {os.getloadavg()[0]:.1f}"
    )
    for name in sys.argv[1:] or PARTS:
        PARTS[name]()


if __name__ == "__main__":
    main()
