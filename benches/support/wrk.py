"""wrk, the load generator for throughput."""

import json
import shutil
import subprocess
import tempfile

# wrk hands its exact counters to this; its own text output is rounded. A shape put before it may say
# what to send, and count answers in a global `counted`.
SCRIPT = """
local threads = {}
function setup(thread) table.insert(threads, thread) end
function done(summary, latency)
  local e = summary.errors
  local counted = 0
  for _, thread in ipairs(threads) do counted = counted + (thread:get("counted") or 0) end
  io.write(string.format(
    '\\n@{"microseconds":%d,"requests":%d,"bytes":%d,"errors":%d,"read_errors":%d,',
    summary.duration, summary.requests, summary.bytes,
    e.connect + e.read + e.write + e.status + e.timeout, e.read))
  io.write(string.format(
    '"counted":%d,"p50_us":%d,"p99_us":%d}\\n',
    counted, latency:percentile(50), latency:percentile(99)))
end
"""


def missing():
    """What to do when wrk is not there; None when it is."""
    return None if shutil.which("wrk") else "wrk is missing: apt-get install wrk"


def run(server, seconds, connections, close, shape=""):
    """Loads the server; requests per second, its processor time per request, and wrk's counters.
    `shape` is Lua that changes the request or counts answers."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(shape + SCRIPT)
        script.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", script.name]
        if close:
            command += ["-H", "Connection: close"]
        before = server.cpu_seconds()
        output = subprocess.run(
            [*command, f"http://127.0.0.1:{server.port}/"], check=True, stdout=subprocess.PIPE, text=True
        ).stdout
        after = server.cpu_seconds()
    line = next(line for line in output.splitlines() if line.startswith("@"))
    result = json.loads(line[1:])
    result["per_second"] = result["requests"] / (result["microseconds"] / 1e6)
    used = {pid: seconds - before.get(pid, 0.0) for pid, seconds in after.items()}
    total = sum(used.values())
    # A load that mostly waits may cost no process a whole tick of the kernel's clock.
    result["busiest"] = max(used.values()) / total if total else 0.0
    result["cpu_us"] = total / max(1, result["requests"]) * 1e6
    result["bytes_each"] = result["bytes"] / max(1, result["requests"])
    return result
