"""Write a copy of the embedded MiniLM that trains without dropout.

python tools/without_dropout.py FOLDER
"""

import shutil
import sys
from pathlib import Path

from helpers.models import embedded_minilm


def main(place: Path) -> None:
    """Copy the model to a folder and set both dropouts of its config to 0.

    Raises:
        SystemExit: if the folder is there already.
    """
    from transformers import AutoConfig

    if place.exists():
        sys.exit(f"{place} exists already. Give the name of a new folder.")
    shutil.copytree(embedded_minilm(), place)
    config = AutoConfig.from_pretrained(place)
    config.attention_probs_dropout_prob = config.hidden_dropout_prob = 0.0
    config.save_pretrained(place)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
