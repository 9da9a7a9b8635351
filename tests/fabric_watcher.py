"""Runs checks on the machine it is on when told to, keeping their memory; one JSON request and answer a line.

{"write": {path below /sys/class: text}, "look": [check, ...]} is answered by the troubles found, each as component,
status, kind and summary. Started by tests inside a mount namespace, where /sys/class is theirs.
"""

import json
import sys
from pathlib import Path

import msgspec

from checks.host import Host
from checks.registry import by_name
from checks.runner import run_check


def main() -> None:
    host = Host()
    memories: dict[str, dict[str, object]] = {}
    for line in sys.stdin:
        request = json.loads(line)
        for name, text in request.get("write", {}).items():
            path = Path("/sys/class") / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")
        troubles = []
        for name in request["look"]:
            check = by_name(name)
            config = msgspec.convert({"look": True} if name == "ib_fabric" else {}, check.config)
            outcome = run_check(check, host, config, memories.get(name, {}))
            memories[name] = outcome.memory if outcome.memory is not None else memories.get(name, {})
            troubles += [
                [f.component, f.status, f.kind, f.summary]
                for f in outcome.findings
                if f.status not in ("ok", "skipped")
            ]
        sys.stdout.write(json.dumps(troubles) + "\n")
        sys.stdout.flush()
    host.close()


if __name__ == "__main__":
    main()
