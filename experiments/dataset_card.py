"""What is in a dataset: origin, returns, lengths, actions, TQ and SACo, as a table, a figure and JSON.

    python experiments/dataset_card.py --env hopper-medium --source bundled

Takes seconds on a CPU. Writes `card.json` and `card.png` to `results/dataset_cards/<name>/`. The bundled
hopper-medium has 236 episodes of mean return 1547, TQ 0.48, and 0.21 % terminal transitions.
"""

import json
import math
import sys
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
from command_line import parse, run_main
from progress import MakingBar, show_download

import jdp.data
from jdp.data.actions import Units
from jdp.data.card import QUANTILES, DatasetCard, Summary, dataset_card
from jdp.data.episodes import Episodes
from jdp.data.recipes import Making
from jdp.data.sources import Source
from jdp.errors import UserError
from jdp.runs import dataset_folder

matplotlib.use("Agg")
import matplotlib.pyplot as plt


@dataclass(frozen=True)
class Config:
    """Print and draw the card of one dataset."""

    env: str = "hopper-medium"
    """D4RL name (newest version if it has none), Minari id, or path of a D4RL-layout HDF5 file."""

    source: Source = "auto"
    """Where to look. auto: a file, then D4RL (on disk, then downloaded), then its recipe or the bundled
    set; Minari ids contain a slash."""

    env_id: str | None = None
    """Gymnasium task of the dataset, for its reference returns, if the source does not say it."""

    max_episode_steps: int | None = None
    """Time limit of the task, where it has none or another is wanted."""

    actions: Units = "auto"
    """Units of the actions: of the task, or scaled to [-1, 1] already, where the task's box is another."""

    reference: str | None = None
    """Dataset that SACo is relative to, e.g. hopper-medium-replay; without one, the own size."""

    out: Path = Path("results")
    """Folder of all results; the card goes to dataset_cards/NAME in it."""


def main() -> None:
    config = parse(Config, None, __doc__ or "")
    show_progress = partial(show_download, file=sys.stderr)  # standard output is the table
    making = Making(progress=MakingBar(sys.stderr))
    data = jdp.data.load(
        config.env,
        source=config.source,
        env_id=config.env_id,
        max_episode_steps=config.max_episode_steps,
        actions=config.actions,
        progress=show_progress,
        making=making,
    )
    reference = (
        None
        if config.reference is None
        else jdp.data.load(config.reference, progress=show_progress, making=making)
    )
    card = dataset_card(data, reference=reference)
    print(table(card))

    folder = config.out / "dataset_cards" / dataset_folder(card.origin.name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "card.json").write_text(json.dumps(asdict(card), indent=1) + "\n")
        draw(data, card).savefig(folder / "card.png", dpi=200)
    except OSError as error:
        raise UserError(f"could not write to {folder}: {error}; choose another --out") from error
    print(f"\nwrote {folder}/card.json and card.png")


def table(card: DatasetCard) -> str:
    origin, spec = card.origin, card.spec
    rows = [
        ("dataset", origin.name),
        ("file", f"{origin.path} ({origin.size:,} bytes)"),
        ("sha256", origin.sha256),
        ("licence", origin.licence),
        ("task", f"{spec.env_id or 'unknown'}, O = {spec.observation_dim}, A = {spec.action_dim}"),
        ("transitions", f"{card.transitions:,} in {card.episodes:,} episodes"),
        (
            "terminals",
            f"{card.terminal_share:.3%} of transitions, {card.terminated_share:.1%} of episodes",
        ),
        ("no successor", f"{card.unknown_successors:,} transitions"),
        ("|action| > 0.99", saturation(card.saturated_actions)),
        ("TQ", "unknown: no reference returns" if card.tq is None else f"{card.tq:.3f}"),
        ("SACo", f"{card.saco:.5f} relative to {card.saco_reference}"),
    ]
    lines = [f"{key:<16} {value}" for key, value in rows]
    heads = ("mean", "std", "min", *(f"{100 * q:g}%" for q in QUANTILES), "max")
    lines += ["", " " * 16 + "".join(f"{head:>9}" for head in heads)]
    summaries = (("return", card.returns), ("normalised", card.normalised), ("length", card.lengths))
    lines += [summary_line(key, summary) for key, summary in summaries if summary is not None]
    return "\n".join(lines + ([f"\nnote: {origin.notice}"] if origin.notice else []))


def saturation(shares: tuple[float, ...]) -> str:
    if len(shares) <= 8:
        return ", ".join(f"{share:.1%}" for share in shares)
    return f"{np.mean(shares):.1%} on average, {max(shares):.1%} in channel {np.argmax(shares)}"


def summary_line(key: str, s: Summary) -> str:
    return f"{key:<16}" + "".join(f"{v:9.1f}" for v in (s.mean, s.std, s.minimum, *s.quantiles, s.maximum))


def draw(data: Episodes, card: DatasetCard) -> plt.Figure:
    """Histograms of the returns, the lengths and every action channel."""
    plt.rcParams.update({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False})
    panels = 2 + data.spec.action_dim
    columns = min(panels, 5)
    rows = math.ceil(panels / columns)
    size = (2.0 * columns, 1.6 * rows + 0.4)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    returns, lengths, *actions = axes.flat
    histogram(returns, data.returns, "return", mean=card.returns.mean)
    histogram(lengths, data.lengths, "length (steps)", mean=card.lengths.mean)
    returns.set_ylabel("episodes")
    share = np.full(len(data), 1 / len(data))
    for i in range(data.spec.action_dim):
        histogram(actions[i], data.actions[:, i], f"action {i}", bins=np.linspace(-1, 1, 41), weights=share)
    actions[0].set_ylabel("share of steps")
    for axis in actions[data.spec.action_dim :]:
        axis.set_visible(False)
    counts = f"{card.episodes:,} episodes, {card.transitions:,} transitions"
    quality = "" if card.tq is None else f", TQ {card.tq:.2f}"
    figure.suptitle(f"{card.origin.name}: {counts}{quality}", fontsize=9)
    return figure


def edges(values: np.ndarray, bins: int) -> np.ndarray:
    """`[bins + 1]`, those of a histogram, also of values that are equal but for rounding."""
    low, high = float(values.min()), float(values.max())
    least = 1e-6 * max(abs(low), abs(high), 1e-6)
    room = max(0.0, (least - (high - low)) / 2)
    return np.linspace(low - room, high + room, bins + 1)


def histogram(
    axis,
    values: np.ndarray,
    label: str,
    *,
    bins: int | np.ndarray = 30,
    weights: np.ndarray | None = None,
    mean: float | None = None,
) -> None:
    if isinstance(bins, int):
        bins = edges(values, bins)
    axis.hist(values, bins=bins, weights=weights, color="#4878a8", linewidth=0)
    if mean is not None:
        axis.axvline(mean, color="#c44e52", linewidth=1)
        axis.set_title(f"mean {mean:,.0f}", color="#c44e52", fontsize=8)
    axis.set_xlabel(label)


if __name__ == "__main__":
    run_main(main)
