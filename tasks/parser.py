"""The parser of the command line, which says what is wrong in one sentence."""

import sys
from typing import NoReturn

from pytorch_lightning.cli import LightningArgumentParser

from tasks.errors import UserError, sentence


class Parser(LightningArgumentParser):
    """Says what is wrong in one sentence instead of printing the usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise UserError with the sentence."""
        fit = f"python -m tasks {sys.argv[1]}"
        hint = f"; `{fit} --help` lists the options, `--model.help CLASS` and `--data.help CLASS` those of a class"
        unknown = ("not accepted" in message or "unrecognized" in message) and hint not in message
        raise UserError(sentence(message) + (hint if unknown else "")) from ex
