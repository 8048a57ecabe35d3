"""What a job holds is seen, also while it opens and closes files all the time."""

import os
import subprocess
import sys

import pytest

from worker.runner import usage

SIZE = 4 << 20
#: Holds memory without a name, at the last of its descriptors; those before it come and go.
RESTLESS = f"""
import os
held = os.memfd_create("held")
os.write(held, bytes({SIZE}))
os.dup2(held, 900)
os.close(held)
print("ready", flush=True)
while True:
    for number in [os.dup(0) for _ in range(300)]:
        os.close(number)
"""


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="memory without a name is Linux's")
def test_descriptors_that_are_gone_hide_none_of_the_others() -> None:
    with subprocess.Popen([sys.executable, "-c", RESTLESS], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        seen = [usage.shared_and_disk_bytes([process.pid], None, ())[0] for _ in range(200)]
        process.kill()
    assert min(seen) >= SIZE
