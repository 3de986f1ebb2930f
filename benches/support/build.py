"""The programs that are measured, built as a user would build them."""

import json
import os
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def programs():
    """Builds them in release mode; their paths by name."""
    # --workspace and --lib bring the plugins, which the server finds beside itself.
    command = ["cargo", "build", "--release", "--locked", "--workspace", "--lib", "--bin", "appserver"]
    for example in ("hello", "floor", "testapp"):
        command += ["--example", example]
    command.append("--message-format=json-render-diagnostics")
    output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    messages = map(json.loads, output.splitlines())
    return {it["target"]["name"]: it["executable"] for it in messages if it.get("executable")}
