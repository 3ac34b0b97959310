"""How much a method acts while it learns."""

from dataclasses import dataclass

from jdp.errors import check_settings


@dataclass(frozen=True)
class OnPolicyConfig:
    """A rollout of one update."""

    environments: int = 8
    """That are stepped at once."""
    steps: int = 256
    """Of each of them."""

    def __post_init__(self) -> None:
        check_settings(
            type(self).__name__,
            environments=(self.environments, 1, 1_000_000),
            steps=(self.steps, 1, 1_000_000),
        )


@dataclass(frozen=True)
class OffPolicyConfig:
    """How much is acted, kept and learned."""

    environments: int = 1
    """That are stepped at once."""
    updates: int = 1
    """Of the learner after each step of all environments."""
    batch_size: int = 256
    """Rows of a minibatch."""
    capacity: int = 1_000_000
    """Rows of the buffer; the oldest make room."""
    warm_up: int = 5_000
    """Steps before the first update, over all environments: at random, of fine-tuners by the base policy."""
    offline_share: float = 0.0
    """Of a minibatch, rows of the dataset (RLPD: .5)."""

    def __post_init__(self) -> None:
        check_settings(
            type(self).__name__,
            environments=(self.environments, 1, 1_000_000),
            updates=(self.updates, 1, 1000),
            batch_size=(self.batch_size, 1, 1_000_000),
            capacity=(self.capacity, self.environments, 100_000_000),
            warm_up=(self.warm_up, 1, self.capacity),
            offline_share=(self.offline_share, 0, 1),
        )

    @property
    def first_steps(self) -> int:
        """Of each environment before the first update: as few as `warm_up` takes."""
        return -(-self.warm_up // self.environments)
