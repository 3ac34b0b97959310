"""What a step of accelerate.sh has found, as JSON: its results, beside its command and the hardware.

python benchmarks/gather.py (--json FILE | --tests FILE | --runs FOLDER) --step a --command "..." ...
"""

import argparse
import json
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from common import machine


def tests(path: Path) -> dict[str, Any]:
    """Of JUnit's file: how many passed, and the names of those that did not."""
    cases = list(ElementTree.parse(path).getroot().iter("testcase"))
    bad = [c for c in cases if c.find("failure") is not None or c.find("error") is not None]
    failed = [f"{c.get('classname')}.{c.get('name')}" for c in bad]
    skipped = sum(c.find("skipped") is not None for c in cases)
    return {"passed": len(cases) - len(failed) - skipped, "skipped": skipped, "failed": failed}


def run(folder: Path) -> dict[str, Any]:
    """Of a run: its scores, as far as it came, and the last of each phase's records."""
    text = (folder / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]  # the last may be cut
    scores, last = folder / "scores.json", {line["phase"]: line for line in lines}
    evaluations = [line for line in lines if line["phase"].endswith("evaluation")]
    return {
        "run": folder.name,
        "scores": json.loads(scores.read_text()) if scores.exists() else None,
        "evaluations": evaluations,
        "last": [line for phase, line in last.items() if not phase.endswith("evaluation")],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="the results of a step of accelerate.sh")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--json", type=Path, help="what a benchmark printed")
    source.add_argument("--tests", type=Path, help="JUnit's file of a run of pytest")
    source.add_argument("--runs", type=Path, help="the folder of runs of a script of experiments/")
    for name, kind in (("step", str), ("command", str), ("status", int), ("seconds", int)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    args = parser.parse_args()
    try:
        if args.json:
            found = json.loads(args.json.read_text())
        elif args.tests:
            found = tests(args.tests)
        else:
            found = [run(path.parent) for path in sorted(args.runs.rglob("metrics.jsonl"))]
    except (OSError, ValueError, ElementTree.ParseError):
        found = None
    if not found:
        sys.exit(1 if args.status else f"accelerate.sh {args.step}: nothing was measured")
    about = {"step": args.step, "command": args.command, "status": args.status, "seconds": args.seconds}
    print(json.dumps({**about, "machine": machine(), "results": found}, indent=1))


if __name__ == "__main__":
    main()
