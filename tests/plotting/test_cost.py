"""The front of a picture of costs joins those that no other beats in both."""

import itertools

import numpy as np

from jdp import plotting
from jdp.plotting.plans import pareto_front


def test_the_front_holds_exactly_what_nothing_beats():
    rng = np.random.default_rng(0)
    for count in (1, 2, 3, 20):
        points = [tuple(p) for p in rng.integers(0, 6, (count, 2)).astype(float).tolist()]

        def beaten(p, by):
            return by != p and by[0] <= p[0] and by[1] >= p[1]

        wanted = {p for p in points if not any(beaten(p, by) for by in points)}
        front = pareto_front(points)
        assert set(front) == wanted and len(front) == len(wanted)
        assert all(a[0] < b[0] and a[1] < b[1] for a, b in itertools.pairwise(front))


def test_no_label_covers_another_or_another_points():
    near = {f"method_{i}": (1e-3 * (1 + 0.1 * i), 30.0 + i, 25.0, 40.0) for i in range(4)}
    figure = plotting.cost(near | {"far": (1e-2, 80.0, 70.0, 90.0)}, score="success %", title="a maze")
    axis = figure.axes[0]
    boxes = [label.get_window_extent() for label in axis.texts]
    points = [axis.transData.transform(label.xy) for label in axis.texts]
    for i, box in enumerate(boxes):
        assert box.count_overlaps(boxes[:i]) == 0
        assert not any(box.contains(*point) for point in points)
