"""The papers' claims and the project's own: what each says, what decides it, and the sweeps that test it."""

from collections.abc import Callable
from dataclasses import dataclass

from tasks.report.analysis.curves import Workload
from tasks.report.analysis.points import View
from tasks.report.claims import arms, failure, golmant, own, rules, you
from tasks.report.claims import studies as s
from tasks.report.claims.rules import Verdict

PAPERS = {"golmant": "Golmant et al. 2018", "you": "You et al. 2020", "own": "this project's reading"}
FIG1, BASE = "golmant_fig1_classification", "golmant_arm_base"
NETWORKS = f"{BASE} golmant_arm_wide golmant_arm_lenet"
RULES = "golmant_fig2_scaling_rules golmant_fig2_scaling_rules_m0_64"
RECIPE = "you_recipe_whole you_recipe_baseline you_recipe_untuned you_recipe_critical"


@dataclass(frozen=True)
class Claim:
    """One claim; `evidence` is the pure function that follows its row in docs/protocol.md."""

    id: str
    statement: str
    evidence: Callable[[list[Workload], View], s.Found]
    sweeps: str  # the studies under configs/sweeps whose embedded.yaml test it, none where no sweep does

    @property
    def paper(self) -> str:
        """Return the paper's name."""
        return PAPERS[self.id.split("-")[0]]

    @property
    def rerun(self) -> str:
        """Return the command that tests the claim anew, empty where there is none."""
        if not self.sweeps:
            return ""
        files = " ".join(f"configs/sweeps/{name}/embedded.yaml" for name in self.sweeps.split())
        return f"python -m tasks sweep {files} && python -m tasks report runs --out report"


CLAIMS = [
    Claim("golmant-1", "Steps fall linearly with the batch size, then less, then no more", golmant.claim_1, FIG1),
    Claim(
        "golmant-2",
        "Beyond some batch size steps stop falling, on training and test targets, while the cost rises",
        golmant.claim_2,
        FIG1,
    ),
    Claim("golmant-3", "The linear regime ends at a moderate batch size", golmant.claim_3, FIG1),
    Claim(
        "golmant-4",
        "Segmentation and language modelling saturate far earlier than classification",
        golmant.claim_4,
        f"{FIG1} golmant_fig1_segmentation golmant_fig1_language",
    ),
    Claim(
        "golmant-5",
        "Linear and square-root scaling help only in the small-to-medium range and are never ideal",
        golmant.claim_5,
        RULES,
    ),
    Claim(
        "golmant-6",
        "Very large batches miss the lowest training loss: an optimization problem",
        golmant.claim_6,
        "golmant_lowest_loss",
    ),
    Claim(
        "golmant-7",
        "Test performance scales worse than training loss, and larger batches generalize worse",
        golmant.claim_7,
        FIG1,
    ),
    Claim(
        "golmant-8",
        "Linear scaling fails where the error of the linear approximation passes 1",
        failure.claim_8,
        f"{RULES} golmant_fig2_failure golmant_fig2_failure_m0_64",
    ),
    Claim("golmant-9", "The architecture changes where the plateau begins", arms.claim_9, NETWORKS),
    Claim(
        "golmant-10",
        "Simpler data plateau later (label noise as a proxy; the paper's own data sets are not tested)",
        arms.claim_10,
        f"{BASE} golmant_arm_noise40 golmant_arm_noise20",
    ),
    Claim(
        "golmant-11",
        "The size of the data set has a weak effect",
        arms.claim_11,
        f"{BASE} golmant_arm_quarter golmant_arm_half",
    ),
    Claim("golmant-12", "Training longer does not improve convergence speed", arms.claim_12, "golmant_longer"),
    Claim(
        "golmant-13",
        "No simple heuristic improves large-batch performance in general",
        arms.claim_13,
        f"{BASE} golmant_arm_lars golmant_arm_lamb golmant_arm_adam golmant_fig2_scaling_rules",
    ),
    Claim(
        "you-1",
        "A staged recipe lifts accuracy far above the baseline at a huge batch (the 18 %: not tested)",
        you.claim_1,
        RECIPE,
    ),
    Claim(
        "you-3",
        "Results contradict ultra-slow diffusion (you-6 seen from the other side)",
        you.claim_3,
        "you_diffusion",
    ),
    Claim("you-4", "It is important to understand huge-batch training", you.no_content, ""),
    Claim("you-5", "Many optimizers have been studied there", you.no_content, ""),
    Claim(
        "you-6",
        "The distance from the initial weights grows as log t, not as a power of t",
        you.claim_6,
        "you_diffusion",
    ),
    Claim(
        "you-7",
        "At equal numbers of updates a huge batch reaches small-batch accuracy",
        you.claim_7,
        "you_equal_updates",
    ),
    Claim("you-9", "The huge-batch deficit is mostly in training accuracy", you.claim_9, "you_equal_updates"),
    Claim("you-10", "At full batch momentum < LARS < LAMB, with equal tuning budgets", you.claim_10, "you_optimizers"),
    Claim(
        "you-11",
        "Linear scaling fails at a batch size where warm-up with layer-wise ratios still trains",
        you.claim_11,
        "you_layerwise",
    ),
    Claim("own-1", "The critical batch size lies below the batch that fills this machine", own.claim_1, FIG1),
    Claim(
        "own-2",
        "Scaling depends more on the network and on data complexity than on the size of the data",
        arms.own_2,
        f"{NETWORKS} golmant_arm_quarter golmant_arm_noise40",
    ),
    Claim(
        "own-3",
        "Fewer classes to tell apart put the plateau later",
        arms.own_3,
        "golmant_arm_base golmant_arm_merged",
    ),
    Claim(
        "own-4",
        "For every network and task tried, steps stop falling beyond some batch size",
        own.claim_4,
        "golmant_curve_language golmant_curve_segmentation golmant_curve_lenet golmant_curve_wide",
    ),
    Claim(
        "own-5",
        "With one rate for all sizes, as Golmant et al. ran it: three regimes and a moderate linear end",
        own.claim_5,
        "golmant_one_rate",
    ),
    Claim("own-6", "Over 30,000 updates the distance still grows as a power of t", you.own_6, "you_diffusion_long"),
]


def verdict_on(claim: Claim, workloads: list[Workload]) -> Verdict:
    """Return the verdict on one claim."""
    kept = s.usable(workloads)

    def seen(rule: str, seeds: str) -> s.Found:
        return claim.evidence(kept, View(rule=rule, seeds=seeds))

    return rules.decide(seen)


def decide(workloads: list[Workload]) -> dict[str, Verdict]:
    """Return the verdict on every claim; no claim is corrected for the others."""
    return {c.id: verdict_on(c, workloads) for c in CLAIMS}
