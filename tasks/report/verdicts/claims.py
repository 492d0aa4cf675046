"""The papers' 24 claims: what each says, what decides it, and the sweep that tests it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tasks.report.curves import Workload
from tasks.report.fit_data import PRIMARY, View
from tasks.report.intervals import NOTHING
from tasks.report.verdicts import golmant, golmant_studies, you, you_recipe
from tasks.report.verdicts.decide import Evidence, Missing, Verdict, holm, verdict_of
from tasks.report.verdicts.studies import rows_of, trusted


@dataclass(frozen=True)
class Claim:
    """One claim of a paper; `evidence` is the pure function that follows its row in the protocol."""

    id: str
    statement: str
    evidence: Callable[[list[Workload], View], Evidence | Missing]
    sweeps: str  # the files under configs/sweeps/embedded that test it, none where no sweep of this project does

    @property
    def paper(self) -> str:
        """Name the paper."""
        return "Golmant et al. 2018" if self.id.startswith("golmant") else "You et al. 2020"

    @property
    def rerun(self) -> str:
        """Give the command that tests the claim anew."""
        if not self.sweeps:
            return ""
        files = " ".join(f"configs/sweeps/embedded/{name}.yaml" for name in self.sweeps.split())
        return f"python -m tasks sweep {files} && python -m tasks report runs --out report"


CLAIMS = [
    Claim(
        "golmant-1",
        "Steps fall linearly with the batch size, then less, then no more",
        golmant.claim_1,
        "golmant_fig1_classification",
    ),
    Claim(
        "golmant-2",
        "Beyond some batch size steps stop falling, on training and test targets, while the cost rises",
        golmant.claim_2,
        "golmant_fig1_classification",
    ),
    Claim(
        "golmant-3", "The linear regime ends at a moderate batch size", golmant.claim_3, "golmant_fig1_classification"
    ),
    Claim(
        "golmant-4",
        "Segmentation and language modelling saturate far earlier than classification",
        golmant.claim_4,
        "golmant_fig1_classification golmant_fig1_segmentation golmant_fig1_language",
    ),
    Claim(
        "golmant-5",
        "Linear and square-root scaling help only in the small-to-medium range and are never ideal",
        golmant.claim_5,
        "golmant_fig2_scaling_rules golmant_fig2_scaling_rules_m0_64",
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
        golmant_studies.claim_7,
        "golmant_fig1_classification",
    ),
    Claim(
        "golmant-8",
        "Linear scaling fails where the error of the linear approximation passes 1",
        golmant_studies.claim_8,
        "golmant_fig2_scaling_rules golmant_fig2_scaling_rules_m0_64",
    ),
    Claim(
        "golmant-9",
        "The architecture changes where the plateau begins",
        golmant_studies.claim_9,
        "golmant_fig3_architecture",
    ),
    Claim(
        "golmant-10",
        "Simpler data plateau later (label noise as a proxy; the paper's own data sets are not tested)",
        golmant_studies.claim_10,
        "golmant_fig3_complexity",
    ),
    Claim(
        "golmant-11",
        "The size of the data set has a weak effect",
        golmant_studies.claim_11,
        "golmant_fig4_data_size",
    ),
    Claim(
        "golmant-12",
        "Training longer does not improve convergence speed",
        golmant_studies.claim_12,
        "golmant_longer golmant_longer_largest_batch",
    ),
    Claim(
        "golmant-13",
        "No simple heuristic improves large-batch performance in general",
        golmant_studies.claim_13,
        "golmant_heuristics",
    ),
    Claim(
        "you-1",
        "A staged recipe lifts accuracy far above the baseline at a huge batch (the 18 %: not tested)",
        you_recipe.claim_1,
        "you_recipe you_recipe_untuned golmant_fig1_classification",
    ),
    Claim("you-2", "A step-by-step comparison attributes the gain", you_recipe.claim_2, "you_recipe"),
    Claim(
        "you-3",
        "Results contradict ultra-slow diffusion (you-6 seen from the other side)",
        you.claim_3,
        "you_diffusion",
    ),
    Claim("you-4", "It is important to understand huge-batch training", you.claim_4, ""),
    Claim("you-5", "Many optimizers have been studied there", you.claim_4, ""),
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
        "golmant_lowest_loss",
    ),
    Claim(
        "you-8",
        "Equal distance from the initial weights equalizes accuracy",
        you.claim_8,
        "you_diffusion",
    ),
    Claim("you-9", "The huge-batch deficit is mostly in training accuracy", you.claim_9, "golmant_lowest_loss"),
    Claim(
        "you-10",
        "At full batch momentum < LARS < LAMB, with equal tuning budgets",
        you_recipe.claim_10,
        "you_optimizers",
    ),
    Claim(
        "you-11",
        "Linear scaling fails at a batch size where warm-up with layer-wise ratios still trains",
        you.claim_11,
        "you_layerwise",
    ),
]


def decide(workloads: list[Workload]) -> dict[str, Verdict]:
    """Decide every claim, with Holm's correction within each paper."""
    usable = trusted(workloads)
    decided = {c.id: verdict_of(partial(c.evidence, usable), PRIMARY, rows_of) for c in CLAIMS}
    papers = ("golmant", "you")
    corrected = [holm({k: v for k, v in decided.items() if k.startswith(paper)}) for paper in papers]
    return {k: v for part in corrected for k, v in part.items()}


def claim_summary(claim: Claim, found: Verdict) -> dict:
    """Give one claim as summary.json holds it."""
    effect = found.main.interval if found.main else NOTHING
    return {
        "id": claim.id,
        "paper": claim.paper,
        "statement": claim.statement,
        "verdict": found.verdict,
        "reason": found.reason,
        "measure": found.main.what if found.main else "",
        "effect": effect.value,
        "low": effect.low,
        "high": effect.high,
        "n": found.n,
        "censored": found.censored,
        "p": found.p,
        "scale": found.scale,
        "rerun": claim.rerun,
        "parts": [
            {
                "what": p.what,
                "effect": p.interval.value,
                "low": p.interval.low,
                "high": p.interval.high,
                "above": p.above,
                "below": p.below,
                "verdict": p.verdict,
            }
            for p in found.parts
        ],
        "robustness": [{"row": r, "verdict": v, "effect": e} for r, v, e in found.robustness],
    }
