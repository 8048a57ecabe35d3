"""The harness fails where a page does not hold."""

from pathlib import Path

import pytest

from tests.support.docs.blocks import read_page
from tests.support.docs.checks import check_json, check_settings, check_text
from tests.support.docs.commands import assignments, check_commands, simple_commands
from tests.support.docs.runner import PageError, check_data, check_form
from tests.support.docs.sessions import BlockError, Session
from tests.support.service import clean_environment


@pytest.fixture
def page(tmp_path: Path):
    def write(text: str):
        (tmp_path / "page.md").write_text(text)
        return read_page(tmp_path / "page.md")

    return write


@pytest.fixture
def session(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    opened: list[Session] = []

    def start(language: str) -> Session:
        opened.append(Session(language, tmp_path / "folder", clean_environment()))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


def test_comments_belong_to_the_block_after_them(page) -> None:
    found = page(
        "<!-- given: digits -->\n\n```sh\nls\n```\n\n<!-- checked: commands -->\n```sh\nmake up\n```\n\n    a + b\n"
    )
    assert [(block.language, block.check, block.given) for block in found.blocks] == [
        ("sh", None, ("digits",)),
        ("sh", "commands", ()),
        ("", None, ()),
    ]
    assert [block.line for block in found.blocks] == [3, 8, 12]
    with pytest.raises(ValueError, match="before no block"):
        page("<!-- checked: commands -->\n\nWords.\n\n```sh\nls\n```\n")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("```\nls\n```\n", "without language"),
        ("```perl\n1\n```\n", "neither run nor checked"),
        ("<!-- checked: skip -->\n```sh\nls\n```\n", "no check is called skip"),
        ("<!-- given: gold -->\n```sh\nls\n```\n", "nothing is called gold"),
    ],
)
def test_form(page, text: str, why: str) -> None:
    with pytest.raises(PageError, match=rf"page\.md:\d: .*{why}"):
        check_form(page(text))


@pytest.mark.parametrize(
    "text",
    [
        '```json\n{"steps": [{"method": "quantize.statical"}]}\n```\n',
        '```json\n{"steps": [{"method": "quantize.static"}]\n```\n',
        "```yaml\nrule_files: [deploy/prometheus/alarms.yml]\n```\n",
        "```text\n$ ls\n```\n",
        "```sh\nexport MODELPRESS_DRAIN=3\n```\n",
        "```sh\nexport MODELPRESS_DRAIN_S=long\n```\n",
        "<!-- checked: commands -->\n```sh\nmodelpress-server up --date DIR\n```\n",
        "<!-- checked: commands -->\n```sh\nmodelpress-server workspaces create x\n```\n",
        "<!-- checked: commands -->\n```sh\nmodelpress compress model.pt2 --limit 3\n```\n",
        "<!-- checked: commands -->\n```sh\nmake love\n```\n",
        "<!-- checked: commands -->\n```sh\npip install 'modelpress-server[gold]'\n```\n",
        "<!-- checked: commands -->\n```sh\nif true; make demo\n```\n",
        "<!-- checked: commands -->\n```sh\nls\n```\n",
        "<!-- checked: compose -->\n```yaml\nservices: {web: {}}\n```\n",
    ],
)
def test_faults_are_found(page, text: str) -> None:
    with pytest.raises(PageError, match=r"page\.md:\d"):
        check_data(page(text))


def test_what_holds() -> None:
    check_json('{"steps": [{"method": "quantize.static"}]}')
    check_settings("export MODELPRESS_DRAIN_S=3 MODELPRESS_KEY=$(cat key)  # MODELPRESS_OIDC_ROLES='{}'")
    check_text("a -> b")
    check_commands("make demo TORCH_ARGS='--index-url x' && modelpress-server up \\\n  --data DIR")
    check_commands("kubectl -n x exec deploy/api -- modelpress-server workspace create default")
    check_commands("docker compose run --rm api key create --workspace default --role operator")


def test_commands_of_a_shell_text() -> None:
    text = "a 'b\nc' # d\ne | f \\\n g\n(h; i) && j"
    assert list(simple_commands(text)) == [["a", "b\nc"], ["e"], ["f", "g"], ["h"], ["i"], ["j"]]
    assert assignments("export A=b C='d e'\nF=\"$G\" H=i j") == {"A": "b", "C": "d e", "H": "i"}


def test_a_shell_keeps_its_state(session) -> None:
    shell = session("sh")
    assert shell.run("export A=b; mkdir c; cd c").strip() == ""
    assert shell.run('echo "$A in $(basename "$PWD")"').strip() == "b in c"
    with pytest.raises(BlockError, match="exit status 1"):
        shell.run("false\necho on")
    with pytest.raises(BlockError):
        shell.run("true")


@pytest.mark.parametrize("text", ["false | true", 'echo "$NOT_THERE"', "cat no-such-file"])
def test_a_shell_stops_at_faults(session, text: str) -> None:
    with pytest.raises(BlockError):
        session("sh").run(text)


def test_a_python_keeps_its_names(session) -> None:
    python = session("python")
    python.run("import asyncio\nx = 1")
    assert python.run("await asyncio.sleep(0)\nprint(x + 1)").strip() == "2"
    with pytest.raises(BlockError, match="NameError"):
        python.run("print(y)")


def test_a_python_sees_what_the_shell_exports(session) -> None:
    session("sh").run("export A='b = c'")
    assert session("python").run("import os\nprint(os.environ['A'])").strip() == "b = c"


def test_a_block_that_hangs_is_ended(session) -> None:
    with pytest.raises(BlockError, match="exit status -9"):
        session("sh").run("echo begun; sleep 100", patience_s=0.5)
