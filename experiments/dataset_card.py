"""What is in a dataset: origin, returns, lengths, actions, TQ and SACo, as a table, a figure and JSON.

    python experiments/dataset_card.py --env hopper-medium --source bundled

Takes seconds on a CPU. Writes `card.json` and `card.png` to `results/dataset_cards/<name>/`. The bundled
hopper-medium has 236 episodes of mean return 1547, TQ 0.48, and 0.21 % terminal transitions.
"""

import json
import sys
from dataclasses import asdict, dataclass

from command_line import parse, run_main
from options import DatasetOptions

from jdp import plotting
from jdp.data.card import dataset_card
from jdp.errors import UserError
from jdp.runs import dataset_folder


@dataclass(frozen=True, kw_only=True)
class Config(DatasetOptions):
    """Print and draw the card of one dataset."""

    reference: str | None = None
    """Dataset that SACo is relative to, e.g. hopper-medium-replay; without one, the own size."""


def main() -> None:
    config = parse(Config, None, __doc__ or "")
    data = config.load(sys.stderr)  # standard output is the table
    reference = None
    if config.reference is not None:
        reference = DatasetOptions(env=config.reference).load(sys.stderr)
    card = dataset_card(data, reference=reference)
    print(card)
    folder = config.out / "dataset_cards" / dataset_folder(card.origin.name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "card.json").write_text(json.dumps(asdict(card), indent=1) + "\n")
        plotting.card(data, card).savefig(folder / "card.png")
    except OSError as error:
        raise UserError(f"could not write to {folder}: {error}; choose another --out") from error
    print(f"\nwrote {folder}/card.json and card.png")


if __name__ == "__main__":
    run_main(main)
