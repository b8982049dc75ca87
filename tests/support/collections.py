"""The label tables of public collections, as the torchxrayvision wheel has them: without pixels."""

import importlib.util
from pathlib import Path

import pytest

_FOUND = importlib.util.find_spec("torchxrayvision")  # its tables alone: importing it takes torchvision
_TABLES = Path(str(_FOUND and _FOUND.origin)).parent / "data"
PADCHEST = _TABLES / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz"
OPENI = _TABLES / "NLMCXR_reports.tgz"
VINDR = _TABLES / "vinbigdata-train.csv.gz"
CHESTXRAY14 = _TABLES / "Data_Entry_2017_v2020.csv.gz"
CHEXPERT = _TABLES / "chexpert_train.csv.gz"

real_tables = pytest.mark.skipif(not PADCHEST.exists(), reason="no torchxrayvision wheel here")
