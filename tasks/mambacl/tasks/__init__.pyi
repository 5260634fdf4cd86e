from .bank import ImageBank as ImageBank
from .config import Config as Config
from .config import ConfigError as ConfigError
from .episode import Episode as Episode
from .episode import Spec as Spec
from .family import Family as Family
from .registry import TaskConfig as TaskConfig
from .registry import build as build
