"""What each claim is judged by where its plan file says nothing else: docs/protocol.md gives the reasons."""

RATIO = 1.25  # of speed-ups or steps, from which an effect counts

MARGINS: dict[str, dict[str, float]] = {
    "golmant-1": {"linear": 0.8, "flat": 0.2},
    "golmant-2": {"ratio": RATIO},
    "golmant-3": {"share": 1 / 16},
    "golmant-4": {"ratio": RATIO},
    "golmant-5": {"ratio": RATIO},
    "golmant-6": {"share": 0.5},
    "golmant-7": {"ratio": RATIO, "points": 0.5},
    "golmant-8": {"doublings": 1.0},
    "golmant-9": {"ratio": RATIO},
    "golmant-10": {"ratio": RATIO},
    "golmant-11": {"ratio": 1.5},
    "golmant-12": {"ratio": RATIO},
    "golmant-13": {"ratio": 1.75},
    "you-1": {"points": 5.0, "multiple": 5.0},
    "you-2": {"share": 0.25},
    "you-3": {"delta_aic": 10.0, "share": 0.8, "from_step": 60},
    "you-6": {"delta_aic": 10.0, "share": 0.8, "from_step": 60},
    "you-7": {"points": 0.5},
    "you-8": {"share": 0.25},
    "you-9": {"share": 0.5, "points": 1.0},
    "you-10": {"points": 0.5},
    "you-11": {"share": 0.5},
    "own-1": {"ratio": 1.0},
    "own-2": {"ratio": 1.0},
    "own-3": {"ratio": RATIO},
    "own-4": {"ratio": RATIO},
    "own-5": {"linear": 0.8, "flat": 0.2, "share": 1 / 16},
    "own-6": {"delta_aic": 10.0, "share": 0.8, "from_step": 60},
}
