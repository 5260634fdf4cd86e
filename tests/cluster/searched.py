"""The search of a sweep without what follows on it: python searched.py EXPERIMENT.yaml; prints the states of its trials."""

import json
import sys
from pathlib import Path

import yaml

from mambacl.platform.board import open_board
from mambacl.platform.config import ExperimentConfig
from mambacl.platform.driver import Delivery
from mambacl.platform.session import session
from mambacl.platform.sweeping.command import claim, search, sweep_folder
from mambacl.platform.tracking.store import Store
from mambacl.tasks.config import parse

config = parse(ExperimentConfig, yaml.safe_load(Path(sys.argv[1]).read_text()))
claim(config, sweep_folder(config))
delivery = Delivery(Store(config.storage))
with session(None):
    study = search(config, sweep_folder(config), delivery, open_board())
delivery.finish()
print(json.dumps({trial.number: (trial.state.name, trial.params) for trial in study.trials}))
