"""npz files: what is in them is read, whichever of the three layouts they have."""

import numpy as np
from data_files import columns, write

import jdp

ENDS = (9, 19, 29)


def d4rl():
    return columns(30, terminal_rows=[9], timeout_rows=[19, 29])


def same(a, b, keys=("observations", "actions", "rewards", "next_observations", "terminals", "timeouts")):
    for key in keys:
        np.testing.assert_array_equal(getattr(a, key), getattr(b, key), err_msg=key)


def test_a_d4rl_dictionary_is_read_as_the_same_hdf5_file(tmp_path):
    values = d4rl()
    np.savez(tmp_path / "mine.npz", **values)
    found = jdp.data.load(str(tmp_path / "mine.npz"))
    same(found, jdp.data.load(write(tmp_path / "mine.hdf5", values)))
    assert found.origin.notice == ""


def test_rewards_and_masks_of_ogbench_s_loader_are_read(tmp_path):
    values = d4rl()
    regular = {k: values[k] for k in ("observations", "actions", "rewards", "next_observations")}
    regular |= {
        "terminals": (values["terminals"] | values["timeouts"]).astype(np.float32),  # ends of episodes
        "masks": 1.0 - values["terminals"],  # 0 where the task ended
    }
    name = tmp_path / "cube-single-play-singletask-v0.npz"
    np.savez(name, **regular)
    found = jdp.data.load(str(name), env_id="Hopper-v5")
    same(found, jdp.data.load(write(tmp_path / "mine.hdf5", values)))
    # Compact: an episode's last observation has a row of its own, which is no step.
    at = np.array(ENDS) + 1
    wide = {k: np.insert(regular[k], at, 0.0, axis=0) for k in ("actions", "rewards")}
    wide |= {k: np.insert(regular[k], at, v, axis=0) for k, v in (("masks", 1.0), ("terminals", 1.0))}
    last = values["next_observations"][list(ENDS)]
    wide |= {"observations": np.insert(values["observations"], at, last, axis=0)}
    wide |= {"valids": np.insert(np.ones(30), at, 0.0)}
    inside = np.setdiff1d(np.arange(30), ENDS)
    values["next_observations"][inside] = values["observations"][inside + 1]
    np.savez(name, **wide)
    same(jdp.data.load(str(name), env_id="Hopper-v5"), jdp.data.load(write(tmp_path / "b.hdf5", values)))
