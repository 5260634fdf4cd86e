from .learner import Association as Association
from .learner import Learner as Learner
from .learner import Output as Output
from .learner import State as State
from .registry import LearnerConfig as LearnerConfig
from .registry import build as build
