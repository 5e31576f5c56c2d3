"""Reading scenarios: those of the library, and mistakes with their line and what was expected there."""

import re
from pathlib import Path

import pytest

from atonce_sim.course import span_s
from atonce_sim.latency import LogNormal
from atonce_sim.scenario import Churn, Condition, Join, Lookups, condition
from atonce_sim.scenario_file import library, load_scenario, read_scenario
from atonce_sim.sessions import Weibull
from dht_atonce.errors import ConfigError

HEAD = 'question = "Does it work?"\n\n[[steps]]\ndo = "join"\n'  # four lines


def mistake(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read_scenario(text, "mine.toml")
    words = str(caught.value)
    assert len(words.splitlines()) == 1
    assert words.startswith("mine.toml")
    return words


# --- the library ---


@pytest.mark.parametrize("name", library())
def test_each_scenario_of_the_library_can_be_read(name: str) -> None:
    same, scenario = load_scenario(name)
    assert same == name
    assert scenario.question.endswith("?") or scenario.question.endswith(")")
    assert scenario.expect
    for number, step in enumerate(scenario.steps):
        assert span_s(step, scenario.peers) >= 0, number
    # A measure of one step is the name of a step and a figure.
    steps = {step.name for step in scenario.steps if step.name}
    figures = {"lookups", "lookup_s", "lookup_rtts", "publish_s", "enter_s", "hops", "messages", "bytes_per_node_s"}
    for expect in scenario.expect:
        if "." in expect.that:
            assert expect.that.partition(".")[0] in steps | figures, expect.that


def test_the_library_has_what_is_promised() -> None:
    assert {
        "amplification",
        "churn",
        "clock-skew",
        "cold-start-1-2-3",
        "eclipse",
        "flash-crowd",
        "flood",
        "forgers",
        "growth",
        "hostile-blackholes",
        "hostile-hoarders",
        "hostile-liars",
        "liars-at-a-key",
        "loss",
        "loss-eviction",
        "mass-death",
        "partition-heal",
        "redirect",
        "restart-everyone",
        "resurrection",
        "scaling",
        "seed-dies",
        "skew",
        "skew-of-an-hour",
        "storage-flood",
        "sybils-at-a-key",
    } <= set(library())
    assert list(library()) == sorted(library())


def test_the_documentation_lists_the_library() -> None:
    text = (Path(__file__).resolve().parent.parent / "docs" / "simulation.md").read_text()
    scenarios = [load_scenario(name) for name in library()]
    rows = [f"| `{name}` | {one.peers:,} {one.level}s | {one.question} |" for name, one in scenarios]
    assert re.findall(r"^\| `[a-z0-9-]+` \| [0-9,]+ (?:node|peer)s \|.*$", text, re.MULTILINE) == rows


def test_a_name_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(ConfigError) as caught:
        load_scenario("chrun")
    assert str(caught.value).startswith("there is no scenario 'chrun'; there are amplification, churn, clock-skew, ")
    assert "ends in .toml" in str(caught.value)


# --- files ---


def test_a_file_is_read_in_full(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        """\
question = "Größe?"
level = "node"
peers = 7
sample_s = 5

[network]
k = 4

[world]
latency = { model = "log-normal", median_ms = 30 }
loss = 0.25

[[steps]]
do = "join"
per_s = 2

[[steps]]
do = "churn"
for_s = 600
session = { model = "weibull", median_s = 60 }

[[steps]]
do = "lookups"
name = "some"
per_peer = 0.5

[[expect]]
that = "some.lookups.correct_share"
is = ">= 0.9"
known_to_fail = [{ peers = 7, seed = 2, issue = "not built yet" }]
""",
        encoding="utf-8",
    )
    name, scenario = load_scenario(str(path))
    assert (name, scenario.question, scenario.level, scenario.peers) == ("mine", "Größe?", "node", 7)
    assert (scenario.network.k, scenario.world.loss, scenario.world.latency) == (4, 0.25, LogNormal(30.0))
    join, churn, lookups = scenario.steps
    assert isinstance(join, Join)
    assert isinstance(churn, Churn)
    assert isinstance(lookups, Lookups)
    assert (join.per_s, span_s(join, 7)) == (2, 3.5)
    assert churn.session == Weibull(60.0)
    assert (lookups.name, lookups.per_peer, lookups.count, lookups.of) == ("some", 0.5, None, "live")
    (expect,) = scenario.expect
    assert condition(expect.is_).holds(0.9)
    (mark,) = expect.known_to_fail
    assert (mark.peers, mark.seed, mark.node, mark.level) == (7, 2, "ours", None)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml cannot be read: No such file"):
        load_scenario(str(tmp_path / "nowhere.toml"))
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"binary\.toml is no text in UTF-8"):
        load_scenario(str(binary))
    folder = tmp_path / "folder.toml"
    folder.mkdir()
    with pytest.raises(ConfigError, match=r"folder\.toml cannot be read: Is a directory"):
        load_scenario(str(folder))


# --- mistakes ---


@pytest.mark.parametrize(
    ("text", "line", "where", "expected"),
    [
        # keys that nobody knows
        ("x = 1\n" + HEAD, 1, "x", "unknown field `x`: Expected one of `question`, `level`, `peers`"),
        (HEAD + "shares = 1\n", 5, "steps.1.shares", "Expected one of `name`, `share`, `over_s`, `per_s`"),
        (HEAD + "[world]\nlos = 1\n", 6, "world.los", "Expected one of `latency`, `loss`"),
        (
            HEAD + '[world]\nlatency = { model = "uniform", low = 1 }\n',
            6,
            "world.latency.low",
            "unknown field `low`: Expected one of `low_ms`, `high_ms`",
        ),
        (HEAD + "[weather]\nrain = 1\n", 5, "weather", "unknown field `weather`"),
        # wrong types
        ("question = 5\n[[steps]]\ndo = 'join'\n", 1, "question", "Expected `str`, got `int`"),
        (HEAD + "[network]\n\nk = 4.5\n", 7, "network.k", "Expected `int`, got `float`"),
        ('question = "?"\npeers = "many"\n[[steps]]\ndo = "join"\n', 2, "peers", "Expected `int`, got `str`"),
        ('question = "?"\nsteps = 5\n', 2, "steps", "Expected `array`, got `int`"),
        # out of range
        (HEAD + "share = 1.5\n", 5, "steps.1.share", "Expected `float` <= 1.0"),
        ("peers = 0\n" + HEAD, 1, "peers", "Expected `int` >= 1"),
        (HEAD + "[world]\nloss = nan\n", 6, "world.loss", "Expected `float`"),
        (HEAD + "[[steps]]\ndo = 'wait'\ns = inf\n", 7, "steps.2.s", "Expected `float` <= 604800.0"),
        ('question = "?"\nsteps = []\n', 2, "steps", "Expected `array` of length >= 1"),
        # words that are not among those known
        (HEAD + "[[steps]]\ndo = 'jion'\n", 6, "steps.2.do", "Invalid value 'jion': Expected one of `join`, `wait`"),
        (
            HEAD + '[world]\nlatency = { model = "square" }\n',
            6,
            "world.latency.model",
            "Expected one of `constant`, `uniform`, `log-normal`, `globe`",
        ),
        ("level = 'nodes'\n" + HEAD, 1, "level", "Invalid enum value 'nodes': Expected one of `node`, `peer`"),
        (
            HEAD + "[[steps]]\ndo = 'lookups'\ncount = 1\nof = 'friends'\n",
            8,
            "steps.2.of",
            "Expected one of `aimed`, `anybody`, `crashed`, `left`, `live`, `nobody`",
        ),
        # what is missing
        ("[[steps]]\ndo = 'join'\n", 1, "", "missing required field `question`"),
        ('question = "?"\n', 1, "", "missing required field `steps`"),
        (HEAD + "[[steps]]\nname = 'what?'\n", 5, "steps.2", "missing required field `do`"),
        (HEAD + "\n[[expect]]\nthat = 'x'\n", 6, "expect.1", "missing required field `is`"),
        (HEAD + "[[steps]]\ndo = 'wait'\n", 5, "steps.2", "missing required field `s`"),
        # hostile peers
        (
            HEAD + "[[steps]]\ndo = 'invade'\ncount = 1\nwho = { kind = 'thief' }\n",
            8,
            "steps.2.who.kind",
            "Invalid value 'thief': Expected one of `sybil`, `eclipse`, `forger`",
        ),
        (
            HEAD + "[[steps]]\ndo = 'invade'\ncount = 1\nwho = { kind = 'liar', says = 'no' }\n",
            8,
            "steps.2.who.says",
            "Expected one of `names`, `clock_s`",
        ),
        (
            HEAD + "[[steps]]\ndo = 'invade'\nwho = { kind = 'liar' }\n",
            5,
            "steps.2",
            "Expected one of `count` and `share` in a step of invade",
        ),
        (
            HEAD + "[[steps]]\ndo = 'invade'\nwho = { kind = 'liar' }\nshare = 1\n",
            8,
            "steps.2.share",
            "Expected `float` < 1.0",
        ),
        (
            HEAD + "[[steps]]\ndo = 'invade'\nwho = { kind = 'sybil' }\ncount = 20\naim = 'victim'\n",
            9,
            "steps.2.aim",
            "Expected one of `key` as the aim of `sybil`",
        ),
        (
            HEAD + "[[steps]]\ndo = 'invade'\nwho = { kind = 'liar' }\ncount = 20\nsubnets = 2\n",
            9,
            "steps.2.subnets",
            "Expected `local = false` in [network]",
        ),
        (
            HEAD + "[[steps]]\ndo = 'lookups'\ncount = 1\nof = 'aimed'\n",
            8,
            "steps.2.of",
            'Expected an `invade` with `aim = "key"` before',
        ),
        (
            HEAD + "[[steps]]\ndo = 'lookups'\ncount = 1\nby = 'victims'\n",
            8,
            "steps.2.by",
            'Expected an `invade` with `aim = "victim"` before',
        ),
        # controls
        (HEAD + "[node]\nmax_record = 5\n", 6, "node.max_record", "Expected one of `alpha`, `eager_alpha`"),
        (HEAD + "[node]\nalpha = 5\nmax_records = 5.5\n", 7, "node.max_records", "Expected `int`, got `float`"),
        (HEAD + "[cpu]\nbox_ms = 5\n", 6, "cpu.box_ms", "Expected one of `datagram_us`, `box_us`"),
        # what types cannot say
        (
            HEAD + "[[steps]]\ndo = 'lookups'\ncount = 1\nper_peer = 1\n",
            5,
            "steps.2",
            "Expected one of `count` and `per_peer` in a step of lookups",
        ),
        (
            HEAD + "[[steps]]\ndo = 'messages'\n",
            5,
            "steps.2",
            "Expected one of `count` and `per_peer` in a step of mess",
        ),
        (
            "level = 'node'\n" + HEAD + "[[steps]]\ndo = 'messages'\ncount = 1\n",
            6,
            "steps.2",
            'Expected `level = "peer"`',
        ),
        (
            HEAD + "[[steps]]\ndo = 'churn'\nfor_s = 5\nsession = { model = 'pareto', median_s = 1 }\n",
            7,
            "steps.2.for_s",
            "Expected a churn no shorter than `sample_s` (10)",
        ),
        (
            HEAD + "[[expect]]\nthat = 'lookups.wrong'\nis = '= 0'\n",
            7,
            "expect.1.is",
            "Expected a condition: '= 0' is no comparison with a number, such as '>= 0.999'",
        ),
    ],
)
def test_a_mistake_is_told_with_its_line_and_what_was_expected(text: str, line: int, where: str, expected: str) -> None:
    words = mistake(text)
    assert words.startswith(f"mine.toml, line {line}{f' ({where})' if where else ''}: "), words
    assert expected in words


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("question = \n", 1),
        (HEAD + "[steps\n", 5),
        (HEAD + "over_s = 5 s\n", 5),
        (HEAD + "do = 'wait'\n", 5),
        ('question = "no end\n', 1),
    ],
)
def test_what_is_no_toml_is_told_with_its_line(text: str, line: int) -> None:
    words = mistake(text)
    assert words.startswith("mine.toml: this is not TOML: ")
    assert f"at line {line}, column " in words


LAYOUTS = {
    "the second of two steps of one kind": (
        HEAD + "[[steps]]\ndo = 'wait'\ns = 5\n\n[[steps]]\ndo = 'wait'\ns = -5  # here\n"
    ),
    "the first of two": HEAD + "[[steps]]\ndo = 'wait'\ns = -5  # here\n[[steps]]\ndo = 'wait'\ns = 5\n",
    "comments that look like it": (
        HEAD + "# [[steps]]\n# s = -5\n[[steps]]  # s = -5\n\n# do = 'wait'\n  do = 'wait'\n  s = -5  # here\n"
    ),
    "a string that looks like it": (
        HEAD + "[[steps]]\ndo = 'wait'\nname = '''\n[[steps]]\ns = -5\n'''\ns = -5  # here\n[[steps]]\ndo = 'heal'\n"
    ),
    "steps in one list": (
        "question = 'Does it?'\nsteps = [\n  { do = 'join' },\n  { do = 'wait', s = 1 },\n\n"
        "  { do = 'wait', s = -1 }, # here\n  { do = 'wait', s = 1 },\n]\n"
    ),
    "a table of its own in a step": (
        HEAD + "[[steps]]\ndo = 'churn'\nfor_s = 600\n[steps.session]\nmodel = 'weibull'\nmedian_s = -1 # here\n"
        "[[steps]]\ndo = 'churn'\nfor_s = 600\n[steps.session]\nmodel = 'weibull'\nmedian_s = 1\n"
    ),
    "a table of its own in the second step": (
        HEAD + "[[steps]]\ndo = 'churn'\nfor_s = 600\n[steps.session]\nmodel = 'weibull'\nmedian_s = 1\n"
        "[[steps]]\ndo = 'churn'\nfor_s = 600\n[steps.session]\nmodel = 'weibull'\nmedian_s = -1 # here\n"
    ),
    "a table inside of a table": HEAD + "[world.latency]\nmodel = 'uniform'\n\nlow_ms = -1 # here\nhigh_ms = 2\n",
    "keys with dots": HEAD + "[world]\nlatency.model = 'uniform'\nlatency.high_ms = 3\nlatency.low_ms = -1 # here\n",
    "keys with quotes": HEAD + "[\"world\"]\n'loss' = 7 # here\n",
    "blanks in a header": HEAD + "[[ steps ]]\ndo = 'wait'\ns = -1 # here\n",
    "marks in a list of several lines": (
        HEAD + "[[expect]]\nthat = 'x'\nis = '== 0'\nknown_to_fail = [\n  { peers = 1, seed = 1, issue = 'a' },\n"
        "  # peers = 'b'\n  { peers = 'b', seed = 1, issue = 'b' }, # here\n]\nwhy = 'so'\n"
    ),
    "marks in tables of their own": (
        HEAD + "[[expect]]\nthat = 'x'\nis = '== 0'\n[[expect.known_to_fail]]\npeers = 1\nseed = 1\nissue = 'a'\n"
        "[[expect]]\nthat = 'x'\nis = '== 0'\n[[expect.known_to_fail]]\npeers = 1\nseed = 's' # here\nissue = 'a'\n"
    ),
    "an expectation between steps": (
        HEAD + "[[expect]]\nthat = 'hops.p99'\nis = '== 0'\n[[steps]]\ndo = 'heal'\n"
        "[[expect]]\nthat = 'x'\nis = 'no' # here\n"
    ),
    "line ends of another system": (HEAD + "[[steps]]\ndo = 'wait'\ns = -5 # here\n").replace("\n", "\r\n"),
    "no line end at the end": HEAD + "[[steps]]\ndo = 'wait'\ns = -5 # here",
    "a separator that is no line end": HEAD + "[[steps]]\nname = 'a\u2028b\x85c'\ndo = 'wait'\ns = -5 # here\n",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_line_is_the_right_one(layout: str) -> None:
    text = LAYOUTS[layout]
    (here,) = [number for number, line in enumerate(text.split("\n"), 1) if "# here" in line]
    found = re.match(r"mine\.toml, line (\d+) ", mistake(text))
    assert found is not None
    assert int(found[1]) == here


def test_each_line_of_a_scenario_is_found() -> None:
    # Every number of the library's scenarios, made a word where it stands.
    spoiled = 0
    for name, text in library().items():
        lines = text.split("\n")
        for number, line in enumerate(lines, 1):
            wrong = re.sub(r"(?<=\w = )[0-9.]+", "'a word'", line, count=1)
            if wrong != line:
                spoiled += 1
                with pytest.raises(ConfigError, match=rf"^{name}\.toml, line {number} "):
                    read_scenario("\n".join([*lines[: number - 1], wrong, *lines[number:]]), f"{name}.toml")
    assert spoiled > 80


# --- conditions ---


@pytest.mark.parametrize(
    ("text", "holds", "fails"),
    [
        (">= 0.999", [0.999, 1.0], [0.998, None]),
        ("<= 2", [2, -5], [2.001, None]),
        ("== 0", [0, 0.0], [0.1, None]),
        ("> -1.5", [-1], [-1.5]),
        ("< 10", [9.999], [10]),
        ("  >=1  ", [1], [0.5]),
    ],
)
def test_conditions(text: str, holds: list[float | None], fails: list[float | None]) -> None:
    read = condition(text)
    assert [read.holds(measured) for measured in holds] == [True] * len(holds)
    assert [read.holds(measured) for measured in fails] == [False] * len(fails)


@pytest.mark.parametrize("text", ["", "5", "=> 5", "!= 5", ">= ", ">= five", "> 1 and < 2", ">= nan", ">= 5%", "≥ 5"])
def test_what_is_no_condition(text: str) -> None:
    with pytest.raises(ValueError, match="is no comparison with a number"):
        condition(text)


def test_a_condition_knows_its_parts() -> None:
    assert condition(">= 0.5") == Condition(">=", 0.5)


@pytest.mark.parametrize("that", ["lookups.corect", "after.seed_share", "before.lookups.correct", "after."])
def test_a_figure_that_does_not_exist_is_told_before_the_run(that: str) -> None:
    text = f"""question = "?"
[[steps]]
do = "lookups"
name = "after"
count = 1
[[expect]]
that = "{that}"
is = "== 1"
"""
    with pytest.raises(ConfigError, match=r"mine\.toml, line 7 .*Expected a figure"):
        read_scenario(text, "mine.toml")
    for good in ("lookups.correct", "after.lookups.correct", "seed_share"):
        read_scenario(text.replace(that, good), "mine.toml")
