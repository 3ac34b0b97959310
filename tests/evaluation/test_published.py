"""The copied numbers: every one has a source, a method and a dataset that exist, and stays with its data."""

import re

import numpy as np

from jdp.data.names import BUNDLED, reference_table
from jdp.evaluation import published
from jdp.evaluation.published import published_scores
from jdp.registry import entries


def test_every_row_has_a_source_a_method_and_a_dataset():
    rows = published_scores()
    assert len({(row.method, row.dataset) for row in rows}) == len(rows) > 100  # one source a cell
    known = {name for kind in ("agent", "policy", "planner") for name in entries(kind)}
    for row in rows:
        assert row.dataset in reference_table(), row
        assert row.method in known, row
        assert re.search(r"arXiv \d{4}\.\d{5}|github\.com/\S+", row.paper), row
        assert row.table and row.read_in and row.printed_as
        assert -10 < row.score < 130
        assert (row.spread_is in ("standard error", "not said")) == np.isfinite(row.spread)
        assert "best score" not in row.source and "online selection" not in row.source


def test_only_d4rls_own_data_have_published_numbers():
    found = published("hopper-medium-v2 (D4RL)")
    assert found["td3_bc"].score == 60.37 and "2210.07105" in found["td3_bc"].source
    assert all(row.dataset == "hopper-medium-v2" for row in found.values())
    others = [
        "hopper-medium-v2",
        "hopper-medium (D4RL)",
        "hopper-medium-v2.hdf5 (file)",
        "hopper-random-v2 (D4RL)",
    ]
    for name in [*others, *(f"{name} (bundled, d4rl-style)" for name in BUNDLED)]:
        assert published(name) == {}
