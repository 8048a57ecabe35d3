"""``python -m tools.reference`` writes every page anew."""

from tools.reference.pages import contents

for path, text in contents().items():
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
