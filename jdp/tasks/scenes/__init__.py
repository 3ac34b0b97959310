"""Scenes: small tasks in JAX in which the way a policy sees decides, each with an expert; one kind a file."""

from jdp.tasks.scenes.cameras import camera_scene
from jdp.tasks.scenes.clutter import clutter_scene
from jdp.tasks.scenes.cue import CUE
from jdp.tasks.scenes.hidden import HIDDEN
from jdp.tasks.scenes.places import FAR, placed_scene
from jdp.tasks.scenes.push import push_scene
from jdp.tasks.scenes.scene import Expert, Planner, Scene, scene
from jdp.tasks.scenes.stages import STAGES

_ALL = (
    HIDDEN,
    CUE,
    push_scene(),
    camera_scene(broken=False),
    camera_scene(broken=True),
    placed_scene(far=0.0),
    placed_scene(far=FAR),
    STAGES,
    clutter_scene(shaken=False),
    clutter_scene(shaken=True),
)
SCENES = {str(found.task.spec.env_id): found for found in _ALL}

__all__ = ["SCENES", "Expert", "Planner", "Scene", "scene"]
