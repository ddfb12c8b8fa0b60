"""A contestant of the benchmark that trains nothing: reports what its job's configurations say, as a child of itself
sleeps. `python -m tests.scripted_peer JOB`."""

import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.peers.job import Job

job = Job.read(sys.argv[1])
child = subprocess.Popen([sys.executable, "-c", "import time; held = bytearray(10**8); time.sleep(600)"])
Path(job.folder, "child").write_text(str(child.pid))
Path(job.folder, "environment").write_text("\n".join(os.environ))
print("as it began")
for number, configuration in enumerate(job.configurations):
    if "status" in configuration:
        sys.exit(int(configuration["status"]))
    if "val_accuracy" in configuration:
        job.report(number, 1, configuration["val_accuracy"])
    time.sleep(configuration.get("sleep_s", 0.0))
child.kill()
child.wait()
