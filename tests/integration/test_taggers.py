"""Models and taggers by the admin's commands, and a scorer that computes what they made known."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from database import Database
from line import Line
from scoring import add_model, to_score
from shared_data import SHARED  # noqa: F401

