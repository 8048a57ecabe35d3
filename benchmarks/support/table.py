"""Heats as Markdown tables: one row per contestant, ours beside its peers."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.support.contest import Contestant, Course, Record


@dataclass(frozen=True)
class Row:
    """A contestant with what it is compared to: the records of its heat by the environment that made them."""

    course: Course
    contestant: Contestant
    record: Record

    def ratio(self, key: str, environment: str) -> float:
        """Its figure over the least of an environment's contestants; NaN without any."""
        mine = self.record.best(key)
        others = [
            self.course.records[one.label].best(key)
            for one in self.course.heat.contestants
            if one.environment == environment
        ]
        found = [value for value in others if value is not None]
        return math.nan if mine is None or not found else mine / min(found)


def _run(key: str, form: str = ".2f") -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        value = row.record.best(key)
        return "" if value is None else format(value, form)

    return cell


def _ratio(key: str) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        value = row.ratio(key, "onnxruntime")
        return "" if math.isnan(value) else format(value, ".2f")

    return cell


def _rival(row: Row) -> str:
    """Its time over that of the contestant it names as its rival."""
    mine, other = row.record.best("quantize"), row.course.records.get(row.contestant.rival)
    theirs = None if other is None else other.best("quantize")
    return "" if mine is None or theirs is None else format(mine / theirs, ".2f")


def _smaller(row: Row) -> str:
    size = row.record.score.get("size")
    return "" if size is None else format(row.course.base["size"] / size, ".2f")


def _counted(row: Row) -> str:
    """Percent by which the file is larger than the bits that were counted."""
    size, counted = row.record.score.get("size"), row.record.best("counted")
    return "" if size is None or counted is None else format(100 * (size / counted - 1), ".1f")


def _worse(row: Row) -> str:
    """Percent of perplexity above that of the float network."""
    value = row.record.score.get("perplexity")
    return "" if value is None else format(100 * (value / row.course.base["perplexity"] - 1), ".2f")


def _score(key: str, scale: float = 1, form: str = ".2f") -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        value = row.record.score.get(key)
        return "" if value is None else format(value * scale, form)

    return cell


def _drop(row: Row) -> str:
    score = row.record.score
    return f"{score['drop']:.2f} [{score['low']:.2f}, {score['high']:.2f}]" if "drop" in score else ""


def _speedup(row: Row) -> str:
    latency = row.record.score.get("latency")
    return "" if latency is None else format(row.course.base["latency"] / latency, ".2f")


def _recovered(row: Row) -> str:
    """The share of the drop of the contestant it names as its start that it takes back."""
    start = row.course.records.get(row.contestant.start)
    if start is None or "drop" not in start.score or "drop" not in row.record.score or start.score["drop"] <= 0:
        return ""
    return f"{100 * (1 - row.record.score['drop'] / start.score['drop']):.0f} %"


#: Key -> heading, and a cell of a row; empty columns are left out.
COLUMNS: dict[str, tuple[str, Callable[[Row], str]]] = {
    "seconds": ("s", _run("seconds")),
    "ratio": ("/ORT", _ratio("seconds")),
    "cpu": ("CPU s", _run("cpu")),
    "cpu_ratio": ("/ORT", _ratio("cpu")),
    "memory": ("peak memory, MB", _run("grown_mb", ".0f")),
    "quantize": ("s, quantizing", _run("quantize")),
    "rival": ("/rival", _rival),
    "smaller": ("smaller", _smaller),
    "counted": ("above counted, %", _counted),
    "perplexity": ("perplexity", _score("perplexity", form=".3f")),
    "worse": ("worse, %", _worse),
    "size": ("MB", _score("size", 1e-6)),
    "sqnr": ("SQNR, dB", _score("sqnr_db")),
    "drop": ("drop, points [95 %]", _drop),
    "recovered": ("recovered", _recovered),
    "latency": ("ms", _score("latency")),
    "speedup": ("x", _speedup),
}


def render(course: Course) -> str:
    """The heat as Markdown: a line about the float network, the table, and who has no row and why."""
    contestants = [one for one in course.heat.contestants if one.label in course.records]
    rows = [Row(course, one, course.records[one.label]) for one in contestants]
    done = [row for row in rows if row.record.runs]
    cells = {key: [COLUMNS[key][1](row) for row in done] for key in course.heat.columns}
    keys = [key for key in course.heat.columns if any(cells[key])]
    lines = [f"\n### {course.heat.title}\n", _facts(course), ""]
    if done:
        lines.append("| | " + " | ".join(COLUMNS[key][0] for key in keys) + " |")
        lines.append("|---" * (len(keys) + 1) + "|")
        lines += [
            f"| {row.contestant.label} | " + " | ".join(cells[key][index] for key in keys) + " |"
            for index, row in enumerate(done)
        ]
        lines.append("")
    lines += [f"- {row.contestant.label}: {row.record.error}" for row in rows if row.record.error]
    return "\n".join(lines)


def _facts(course: Course) -> str:
    base, words = course.base, []
    if "size" in base:
        words.append(f"float {base['size'] / 1e6:.2f} MB")
    if "latency" in base:
        words.append(f"{base['latency']:.2f} ms")
    if "accuracy" in base:
        words.append(f"accuracy {base['accuracy']:.2f} %")
    if "perplexity" in base:
        words.append(f"perplexity {base['perplexity']:.3f}")
    load = f", load average {min(course.load)} to {max(course.load)}" if course.load else ""
    return "; ".join([*words, f"took {course.seconds:.0f} s{load}"]) + "."
