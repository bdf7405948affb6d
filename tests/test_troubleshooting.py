"""What people are told when something is wrong is explained in TROUBLESHOOTING.md: all of it, and
nothing that no code says any more."""

import ast
import itertools
import re
from pathlib import Path

from service.errors import ServiceError

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "service" / "TROUBLESHOOTING.md").read_text("utf-8")
TREES = {
    path.relative_to(ROOT).as_posix(): ast.parse(path.read_text("utf-8"))
    for package in ("models", "service", "training")
    for path in sorted((ROOT / package).rglob("*.py"))
}
ANY = "…"


def family(kind):
    return {kind, *itertools.chain.from_iterable(family(each) for each in kind.__subclasses__())}


def errors():
    """Names of all classes of the error tree, also of those that nothing here imports."""
    bases = {
        node.name: {ast.unparse(base).rpartition(".")[2] for base in node.bases}
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    found = {"KizuError"}
    while more := {name for name, of in bases.items() if of & found} - found:
        found |= more
    return found


def texts(node, known):
    """What an expression can say, with … for what is only known when it runs."""
    match node:
        case ast.Constant(str(text)):
            return [text]
        case ast.JoinedStr(parts):
            return ["".join(said) for said in itertools.product(*(texts(p, known) for p in parts))]
        case ast.FormattedValue(ast.IfExp() as choice):
            return [ANY] if all(one == ANY for one in texts(choice, {})) else texts(choice, known)
        case ast.IfExp(_, one, other):
            return texts(one, known) + texts(other, known)
        case ast.BinOp(left, ast.Add(), right):
            pairs = itertools.product(texts(left, known), texts(right, known))
            return ["".join(said) for said in pairs]
        case ast.Name(name) if name in known:
            return texts(known[name], {})
        case _:
            return [ANY]


def calls(tree):
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def named(call):
    return ast.unparse(call.func).rpartition(".")[2]


def constants(tree):
    return {
        node.targets[0].id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }


def says_something(text):
    return re.search(r"[A-Za-z]{3}", text) is not None


def messages():
    """Of every error that a person can be told, by where it is raised."""
    names = errors()
    for path, tree in TREES.items():
        known = constants(tree)
        for call in calls(tree):
            # ValueError: what pydantic tells whoever sent it.
            validated = path.startswith("service/") and not path.startswith("service/store/")
            if named(call) in names or (named(call) == "ValueError" and validated):
                said = call.args[:1]
            elif named(call) == "HTTPException":
                said = call.args[1:2]
            else:
                continue
            yield from (
                (f"{path}:{call.lineno}", text)
                for node in said
                for text in texts(node, known)
                if says_something(text)
            )


def shown():
    """The first column of each table of two, and what doctor's say."""
    rows = re.findall(r"^\| (?:`[a-z]+` \| )?`([^`]+)` \| [^|]+ \|$", PAGE, re.M)
    return [text for text in rows if text not in ("event", "alert")]


def test_every_type_of_problem_is_explained():
    kinds = family(ServiceError)
    assert len(kinds) == 19
    rows = [
        f"| `urn:kizu:problem:{kind.type}` | {kind.status} | {'yes' if kind.retryable else 'no'} |"
        for kind in kinds
    ]
    assert [row for row in rows if row not in PAGE] == []


def test_every_message_is_explained():
    found = list(messages())
    assert len(found) > 250
    assert [(where, text) for where, text in found if f"| `{text}` |" not in PAGE] == []


def test_every_warning_of_the_log_is_explained():
    events = {
        call.args[0].value
        for tree in TREES.values()
        for call in calls(tree)
        if ast.unparse(call.func) in ("log.warning", "log.error")
    }
    assert len(events) > 25
    assert [event for event in events if f"| `{event}` |" not in PAGE] == []


def test_all_advice_of_the_doctor_is_explained():
    tree = TREES["service/doctor.py"]
    said = [
        (call.args[0].value, text)
        for call in calls(tree)
        if named(call) == "Finding" and isinstance(call.args[0], ast.Constant)
        for text in texts(call.args[2], {})
    ]
    advice = [(subject, text.partition("; ")[2]) for subject, text in said if "; " in text]
    assert len(advice) > 10
    rows = [row for row in PAGE.splitlines() if row.startswith("| `")]
    assert [
        (subject, text)
        for subject, text in advice
        if not any(row.startswith(f"| `{subject}` | `") and text in row for row in rows)
    ] == []


def test_every_alert_is_explained():
    rules = (ROOT / "deploy" / "prometheus" / "alerts.yml").read_text("utf-8")
    alerts = re.findall(r"- alert: (\w+)", rules)
    assert alerts
    assert [alert for alert in alerts if f"| `{alert}` |" not in PAGE] == []


def test_nothing_is_explained_that_nobody_says():
    said = {
        text
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp)
        for text in texts(node, constants(tree) if isinstance(node, ast.JoinedStr) else {})
    }
    for file in (ROOT / "service" / "web").rglob("*.js"):
        said |= {
            re.sub(r"\{\w+\}", ANY, text)
            for text in re.findall(r"'([^'\n]+)'", file.read_text("utf-8"))
        }
    said.add((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text("utf-8"))
    everything = "\n".join(said)
    found = shown()
    assert len(found) > 280
    assert [text for text in found if text not in everything] == []
