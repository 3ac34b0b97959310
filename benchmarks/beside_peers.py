"""Other implementations beside ours, in turns in one run, printed as JSON.

    python benchmarks/beside_peers.py --peers FOLDER [--only CORL] [--rows 1000000] [--repeats 7]

FOLDER holds clones of the peers, each under the name of its repository; those that are missing are named,
with where to get them. Their functions are run as they are (`benchmarks/peers/`); nothing of theirs is in
this repository. Of each work: median seconds of both sides, timed in turns with a matrix product of ours, and
their ratio, which alone compares. PyTorch's threads spin for a moment after their work, then sleep: with
OMP_WAIT_POLICY=passive its work takes twice as long, and with active ours is slowed by threads that never
sleep, so leave that variable unset. Meant for a machine that does nothing else; its `load` is printed.
"""

import argparse
import json
import platform
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from common import gflops, interleaved, machine, matmul
from peers import Pair, Peer, cleandiffuser, corl, guided, unifloral

PEERS = (cleandiffuser.PEER, unifloral.PEER, corl.PEER, guided.PEER)


def line(peer: Peer, pair: Pair, repeats: int) -> dict[str, Any]:
    times = interleaved({"theirs": pair.theirs, "ours": pair.ours, "matmul": matmul()}, repeats)
    theirs, ours = times["theirs"] / pair.their_units, times["ours"] / pair.our_units
    found = {
        "work": pair.work,
        "peer": peer.name,
        "theirs_seconds": round(theirs, 5),
        "ours_seconds": round(ours, 5),
        "ours_over_theirs": round(ours / theirs, 3),
        "matmul_gflops": round(gflops(times["matmul"]), 1),
    }
    return found | ({"note": pair.note} if pair.note else {})


def versions() -> dict[str, str]:
    torch = sys.modules.get("torch")
    return {"python": platform.python_version()} | ({} if torch is None else {"torch": torch.__version__})


def main() -> None:
    parser = argparse.ArgumentParser(description="other implementations beside ours")
    parser.add_argument("--peers", type=Path, required=True, help="the folder of their clones")
    parser.add_argument("--only", nargs="+", choices=[p.name for p in PEERS], default=[p.name for p in PEERS])
    parser.add_argument("--rows", type=int, default=1_000_000, help="transitions to draw batches from")
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    results, missing = [], []
    for peer in (p for p in PEERS if p.name in args.only):
        if (lack := peer.missing(args.peers)) is not None:
            missing.append(lack)
            print(lack, file=sys.stderr)
            continue
        with redirect_stdout(sys.stderr):  # some of them print
            pairs = peer.pairs(args.peers / peer.name, args.rows)
            results += [line(peer, pair, args.repeats) for pair in pairs]
    shown = {"machine": machine() | versions(), "commits": {p.name: p.commit for p in PEERS}}
    print(json.dumps({**shown, "missing": missing, "results": results}, indent=1))
    sys.exit(1 if not results else 0)


if __name__ == "__main__":
    main()
