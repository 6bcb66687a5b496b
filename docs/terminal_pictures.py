"""Pictures of what `csoftmax demo` and `csoftmax bench` print, for the README: docs/images/demo.svg and bench.svg.

pip install rich && python docs/terminal_pictures.py
"""

import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

IMAGES = Path(__file__).parent / "images"
# Without the fonts that rich would load from elsewhere: any of the reader's with letters of one width will do.
FORMAT = re.sub(r"@font-face {{.*?}}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
COMMANDS = {"demo": ["demo", "-o", "digits.model"], "bench": ["bench", "digits.model"]}


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for name, arguments in COMMANDS.items():
            command = [sys.executable, "-m", "csoftmax", *arguments]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            console = Console(record=True, width=80, file=io.StringIO())
            console.print(Text(f"$ csoftmax {' '.join(arguments)}", style="bold"))
            console.print(Text(output.rstrip()))
            console.save_svg(IMAGES / f"{name}.svg", title=f"csoftmax {name}", code_format=FORMAT, unique_id=name)


if __name__ == "__main__":
    main()
