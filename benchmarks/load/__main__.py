"""What one API process bears, beside a bare Starlette application on the same server.

``make load``, or ``python -m benchmarks.load [reads] [streams] [lists] [uploads]``, starts a real PostgreSQL and
Valkey and one API process as `modelpress-server api` runs it, with authentication, rate limits and log lines, and
prints each figure with its aim. Where there are two cores, server and client have one each, but for
uploads, where both sides have all.
"""

import argparse
import sys

from benchmarks.load import lists, reads, streams, uploads
from benchmarks.load.machine import raise_open_files
from benchmarks.load.site import open_site

PARTS = {"reads": reads.measure, "streams": streams.measure, "lists": lists.measure, "uploads": uploads.measure}


def main() -> int:
    """Prints the figures; 1 where an event was lost or a request failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all where none is named")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each round of reads")
    parser.add_argument("--rounds", type=int, default=5, help="of reads and uploads")
    parser.add_argument("--connections", type=int, default=32, help="of reads")
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--events", type=int, default=60, help="that each stream brings")
    parser.add_argument("--rate", type=float, default=2.0, help="events per second")
    parser.add_argument("--rows", type=int, default=100_000, help="jobs in the table")
    parser.add_argument("--requests", type=int, default=300, help="for each kind of page")
    parser.add_argument("--mebibytes", type=int, default=128, help="of each upload")
    parser.add_argument("--senders", type=int, default=8, help="uploads at once")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    raise_open_files()
    failures = 0
    for part in options.parts or PARTS:
        with open_site() as site:
            print(f"\n{part}", flush=True)
            for line in PARTS[part](site, options):
                print(f"  {line.text}", flush=True)
                failures += line.failed
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
