"""Commands that cannot do what they are told say why in one message."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
FIT = "kizu-train fit . --recipe r"
IMPORT = "kizu-train backbone import none.onnx --name n --licence l --mean 0,0,0 --std 1,1,1"
BAD = {
    "kizu-train fit none --recipe r": "no folder none",
    "kizu-train fit . --recipe r --backbone none": "no backbone called 'none'",
    FIT: "no good images",
    "kizu-train retrain --snapshot . --champion store/r/1": "not a snapshot",
    "kizu bundle verify store/r/1": "not a bundle",
    "kizu snapshot": "no labelled images",
    "kizu snapshot --database nonsense": "cannot be opened",
    "kizu bundle promote r 1 --by eva --reason test": "no version 1",
    IMPORT: "no file none.onnx",
    "kizu serve --database nonsense": "cannot be opened",
    "kizu serve --device tpu": "KIZU_DEVICE 'tpu'",
    "kizu serve --host 203.0.113.1": "cannot be listened on",
}


@pytest.mark.parametrize("command", BAD)
def test_bad_input_is_one_message_and_exit_2(tmp_path, command):
    program, *given = command.split()
    done = subprocess.run(
        [BIN / program, *given], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {
            "KIZU_STORE": "store", "KIZU_DATA": "data", "KIZU_CACHE": "features",
            "KIZU_BACKBONES": "backbones", "KIZU_DATABASE": "sqlite:///kizu.sqlite3",
        },
    )  # fmt: skip
    assert done.returncode == 2, done.stdout + done.stderr
    shown = " ".join(done.stderr.split())
    assert BAD[command] in shown
    assert "Traceback" not in shown
    assert not list(tmp_path.glob("store/*"))
