"""What is known of tasks: mazes, families of names, D4RL's coordinates; and who collects data in them."""

from jdp.tasks.families import episode_limit, goal_entries, register
from jdp.tasks.mazes import MAZES, Maze, check_place, maze_of, point_maze

__all__ = [
    "MAZES",
    "Maze",
    "check_place",
    "episode_limit",
    "goal_entries",
    "maze_of",
    "point_maze",
    "register",
]
