"""Runs a hostile PyTorch file behind the walls alone, without any look at it first.

Run as ``python -m tests.sandbox_probes.torch_child --ask {...} --confine {...}``. With ``"open"``
in the question it does not enter the sandbox, which shows that the file itself bites.
"""

import json
import sys
from pathlib import Path
from typing import Any

from apps.inference.sandbox.__main__ import _confinement
from apps.inference.sandbox.enter import enter


def main() -> None:
    options = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    ask = json.loads(options["--ask"])
    if "open" not in ask:
        enter(_confinement(options["--confine"], [ask["file"]]))
    import torch

    try:
        if ask["how"] == "script":
            opened: Any = torch.jit
            opened.load(ask["file"])(torch.ones(1, 4))
            said = "done"
        else:
            said = str(torch.load(ask["file"], weights_only=False))
    except (RuntimeError, OSError) as error:
        said = f"{type(error).__name__}: {error}"
    Path("report.json").write_text(json.dumps({"said": said[:2000]}))


if __name__ == "__main__":
    main()
