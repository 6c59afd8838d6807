"""What a run is to do, and what it found."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Plan:
    faults: int = 1000
    urls: int = 20_000
    seed: int = 1
    clients: int = 4
    extractors: int = 2
    scorers: int = 2
    downloaders: int = 2
    stewards: int = 1


@dataclass
class Report:
    plan: dict[str, int]
    seconds: float = 0.0
    faults: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    clients: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    database: dict[str, Any] = field(default_factory=dict)
    server: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
