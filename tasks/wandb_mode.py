"""Whether W&B can be reached from here, decided before it is started; imports no torch."""

import os


def choose_mode() -> tuple[str, str]:
    """Return the W&B mode for this place, and why, in words."""
    mode = os.environ.get("WANDB_MODE")
    if mode in ("online", "offline", "disabled", "shared"):
        return mode, f"WANDB_MODE is {mode}"
    if mode:
        raise ValueError(f"WANDB_MODE is {mode!r}: give online, offline or disabled")
    import wandb  # here, since most runs do not need it and it takes half a second

    try:
        if wandb.login(prompt=False):
            return "online", "an API key is there"
    except Exception as error:  # wandb raises many kinds; none may end a training run
        return "offline", f"its server cannot be used ({str(error).splitlines()[0]})"
    return "offline", "there is no API key (`wandb login`, or WANDB_API_KEY)"


def mode_message(mode: str, why: str, folder: str) -> str:
    """Return the line that says where W&B's copy goes, `folder` being the one that W&B writes into."""
    later = f"; `wandb sync {folder}/wandb/offline-run-*` uploads later" if mode == "offline" else ""
    return f"W&B is {mode}: {why}{later}"
