"""Writes docs/api.md and docs/components.md: `make docs`.

api.md is made from the source alone, which is parsed and never imported: a class's fields with the string under each one or
the comment behind it, its properties and methods with their docstrings. `missing()` names every public member that has no
sentence, or a tensor whose shape is not said; a test asks it. components.md imports every built-in component, since what
one needs may depend on its options.
"""

from __future__ import annotations

import ast
import inspect
import io
import re
import sys
import textwrap
import tokenize
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo

ROOT = Path(__file__).resolve().parents[1]
CORE = ROOT / "core"
PACKAGES = ("hookline", "hookline.kernels", "hookline.testing")
ROOMS = ("hookline.batch", "hookline.contract")
"""Every public class of these has a sentence for every member, whether api.md shows the class or not."""
SHOWN_DUNDERS = ("__len__", "__getitem__")
RETIRED = ("mend",)
"""Old names that still answer, with a warning; the page leaves them out."""
EDITED = "<!-- Made by `make docs` from the docstrings; edit those. -->"

# ------------------------------------------------------------------------------------------------ what api.md shows


@dataclass(frozen=True)
class Section:
    title: str
    text: str
    names: Sequence[str]
    """Public names of `hookline`, or `module:name` for what only a signature mentions."""


SECTIONS = (
    Section(
        "Stages",
        "What flows from hook to hook: `Batch → Rollout → Scored → Advantaged`, each a frozen type that adds to the one "
        "before. Letters at the end of a name are its shape: **B** rows, **P** prompt tokens, **T** response tokens, "
        "**N** chosen items, **V** tokens of the vocabulary, **H** width of a hidden state. Rows are right-padded; "
        "log-probs, entropies and KL are in nats; rewards have the unit of the experiment's own reward.",
        ("Batch", "Rollout", "Scored", "Advantaged", "Behaviour", "Sampling", "KeptIds", "Term", "Record",
         "Encoded", "pairs", "concat", "pad_rows", "put_last", "read_last"),
    ),
    Section(
        "Feedback",
        "What an annotator said: a component of kind `feedback` returns `Judgement`s about rows of a batch; phases, files and "
        "stores keep `Event`s, which hold the prompt and the candidates themselves and never change.",
        ("Judgement", "Event", "Candidate", "Producer", "Comparison", "Ranking", "Rating", "Correction", "Thumb", "Spans",
         "Span", "Comment", "Skip", "Item", "Store", "Counts", "Verified", "store"),
    ),
    Section(
        "An experiment in Python",
        "The parts of an experiment as types for an editor: each is a plain dict, and is checked as an experiment file is. "
        "[docs/python.md](python.md) shows them.",
        ("Experiment", "Model", "Phase", "Evaluation", "use"),
    ),
    Section(
        "Hooks",
        "What a component may answer, when it is called, and what it may do with its arguments. A method marked "
        "`@hookimpl` names only the arguments that it uses.",
        ("hookimpl", "HOOK_API", "hookline.contract.hookspecs:StageSpecs", "hookline.contract.hookspecs:TrackerSpecs"),
    ),
    Section(
        "What a component gets",
        "`setup` and every hook that asks for `ctx` get a `Context`. Trackers get the `Run`.",
        ("Context", "Encoder", "Overlong", "hookline.contract.context:Role", "hookline.contract.context:Rows",
         "hookline.contract.context:Heads", "hookline.contract.family:Side", "Tokenizer", "Completions", "NextToken", "Run"),
    ),
    Section(
        "What a component can be",
        "Every component derives from `Component`; a kind that is not called through hooks has a base class of its own.",
        ("Component", "Engine", "Request", "Completion", "Environment", "Turn", "Family", "Decoding", "Architecture",
         "Vocabulary", "Head", "Adapter", "Task", "Process", "State", "Format", "EventFormat", "Command", "Argument", "Out"),
    ),
    Section(
        "Options and figures",
        "A component's options are a pydantic model; its figures are declared before they can be logged.",
        (
            "Config", "UpdateConfig", "Use", "CodePath", "DataName", "LocalPath", "ModelPath", "PhaseName", "StoreName",
            "instance_name", "Metric",
            "figure_name",
        ),
    ),
    Section(
        "The loss",
        "What `ctx.train` hands to the loss function of an update, and what that function returns. A mean divides by the "
        "count of the whole optimiser step, so that a gradient does not depend on how rows are split.",
        ("MicroBatch", "Loss", "Stats"),
    ),
    Section(
        "Running and studying",
        "The functions behind the commands.",
        (
            "explain", "run", "sweep", "compare", "reproduce", "evaluate", "export", "generate", "chat", "speaker",
            "hookline.study.speak:Speaker", "interval", "figure_interval", "Estimate",
            "Table", "Column", "rows", "inspect_data", "hookline.study.dataset:Inspection", "validate_data",
            "hookline.study.dataset:Finding", "convert_data", "prompt_messages", "model_folder", "load_adapter",
            "score_labels", "task", "meanings",
            "hookline.synonyms:Ours", "__version__",
        ),
    ),
    Section(
        "Judgements",
        "Whom to trust, what reward models are worth, who is better, and what to ask next. [feedback.md](feedback.md) shows them.",
        (
            "read_events", "newest", "settled", "settled_rows", "as_row", "remove_annotator",
            "annotators", "hookline.study.judging.annotators:Judgements", "hookline.study.judging.annotators:Annotator",
            "hookline.study.judging.annotators:Doubtful", "agreement", "krippendorff", "hookline.study.judging.agreement:Agreement",
            "majority", "dawid_skene", "one_coin", "glad", "crowd_bt", "hookline.study.judging.aggregation:Consensus",
            "judge_reward_model", "hookline.study.judging.reward_models:RewardModel", "calibration",
            "hookline.study.judging.calibration:Calibration", "ceiling", "ceiling_of_agreement",
            "hookline.study.judging.calibration:Ceiling", "hookline.study.judging.calibration:LikedOrNot", "model_ratings", "ratings",
            "hookline.study.judging.ratings:Ratings", "bradley_terry", "davidson", "length_controlled",
            "contests", "put_contest", "hookline.study.judging.contest:Contest",
            "hookline.study.judging.contest:Preferred", "hookline.study.judging.contest:Marked",
            "hookline.study.judging.contest:Sameness", "always_valid", "hookline.study.judging.sequential:AlwaysValid", "best_of_n",
            "overoptimisation", "hookline.study.judging.optimised:BestOfN", "choose", "posterior",
            "hookline.study.judging.choosing:Asked", "hookline.study.judging.choosing:Posterior",
        ),
    ),
    Section(
        "Errors",
        "What a user can fix is a `HooklineError`: the command line prints its sentence and exits with its code.",
        ("HooklineError", "ExperimentError", "DataError", "CheckpointError", "PluginError", "NumbersError",
         "ServiceError"),
    ),
    Section(
        "hookline.kernels",
        "Token statistics, GAE and KL in C++ and CUDA, with a torch reference. More: [kernels.md](kernels.md).",
        ("token_stats", "linear_token_stats", "TokenStats", "STATISTICS", "IGNORE", "draw", "Drawn", "gae", "kl_estimate", "kl_divergence",
         "linear_kl_divergence", "backend", "build_info"),
    ),
    Section(
        "hookline.testing",
        "A component under test: the laws of its kind, a real phase around it, and benchmarks. The two fixtures are there "
        "in every pytest session of an environment that has Hookline.",
        ("conformance", "check", "laws", "Law", "Verdict", "Report", "Harness", "hookline.testing.harness:Gradient",
         "Subject", "open_phase", "hookline.testing.pytest_plugin:hookline_harness",
         "hookline.testing.pytest_plugin:hookline_conforms", "bench_kernels", "judge_kernels", "stored_kernels",
         "bench_update", "timed_steps", "in_child", "peak_bytes", "PARTS", "machine"),
    ),
)  # fmt: skip

# ------------------------------------------------------------------------------------------------ reading the source


@dataclass(frozen=True)
class Member:
    """A field, property or method of a class, as its source says it."""

    name: str
    is_call: bool
    """Whether it is a method; else it is read like a field."""
    type: str = ""
    """A field's type, or the type that a method returns."""
    signature: str = ""
    default: str = ""
    text: str = ""


@dataclass(frozen=True)
class Entry:
    """A public name: a class with members, a function, or a value."""

    name: str
    module: str
    heading: str
    """`class Batch`, a function's signature, or `NAME = value`."""
    text: str
    type: str = ""
    """What a function returns."""
    bases: tuple[str, ...] = ()
    members: tuple[Member, ...] = ()

    @property
    def path(self) -> str:
        return source_of(self.module).relative_to(ROOT).as_posix()


def source_of(module: str) -> Path:
    path = CORE.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


HIDDEN = ("Kept",)
"""Bases without an entry of their own, whose members are shown with each class; private ones are, too."""


@cache
def parsed(module: str) -> tuple[ast.Module, Mapping[int, str]]:
    """A module's syntax, and the comments that stand behind code, by line."""
    source = source_of(module).read_text(encoding="utf-8")
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT and token.line[: token.start[1]].strip()
    }
    return ast.parse(source), comments


def string_in(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return textwrap.dedent(" " * node.col_offset + node.value.value).strip()
    return ""


def statements(body: Sequence[ast.stmt]) -> Iterator[tuple[ast.stmt, ast.stmt | None]]:
    """Each statement with the one behind it, within `if TYPE_CHECKING:` too."""
    for node, behind in zip(body, [*body[1:], None]):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from statements(node.body)
        yield node, behind


def entry(module: str, name: str) -> Entry:
    """A name that a module defines or imports from another one of ours."""
    tree, comments = parsed(module)
    for node, behind in statements(tree.body):
        if isinstance(node, ast.ClassDef) and node.name == name:
            bases = tuple(ast.unparse(base).partition("[")[0] for base in node.bases)
            hidden = [entry(module, base) for base in bases if base.startswith("_") or base in HIDDEN]
            members = (*(m for one in hidden for m in one.members), *members_of(node, comments))
            heading = f"class {name}"
            if init := next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None):
                heading = signature(init, heading)
            return Entry(name, module, heading, doc(node), bases=bases, members=members)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name and not is_overload(node):
            returned = shown(node.returns) if node.returns else ""
            return Entry(name, module, signature(node, name), doc(node), type=returned)
        if name in targets(node):
            value = shown(node.value) if isinstance(node, ast.Assign | ast.AnnAssign) and node.value else ""
            return Entry(name, module, f"{name} = {value}", string_in(behind) or comments.get(node.lineno, ""))
        if isinstance(node, ast.ImportFrom) and any((alias.asname or alias.name) == name for alias in node.names):
            above = module.split(".")
            if source_of(module).name != "__init__.py":
                above = above[:-1]
            home = (
                ".".join([*above[: len(above) - node.level + 1], node.module or ""]) if node.level else str(node.module)
            )
            return entry(home, next(alias.name for alias in node.names if (alias.asname or alias.name) == name))
    raise LookupError(f"{module} has no {name}")


def targets(node: ast.stmt) -> list[str]:
    """The names that a statement sets."""
    if isinstance(node, ast.AnnAssign):
        return [ast.unparse(node.target)]
    if not isinstance(node, ast.Assign):
        return []
    each = (target.elts if isinstance(target, ast.Tuple) else [target] for target in node.targets)
    return [ast.unparse(target) for some in each for target in some]


def shown(node: ast.expr) -> str:
    """An expression as our source is formatted: in double quotes."""
    text = ast.unparse(node)
    return text if '"' in text else text.replace("'", '"')


def doc(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    return (ast.get_docstring(node) or "").strip()


def decorators(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    return [ast.unparse(decorator).partition("(")[0] for decorator in node.decorator_list]


def is_overload(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return "overload" in decorators(node)


def members_of(cls: ast.ClassDef, comments: Mapping[int, str]) -> Iterator[Member]:
    for node, behind in statements(cls.body):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if node.name == "__init__":
                yield from set_in(node, comments)
            hidden = node.name.startswith("_") and node.name not in SHOWN_DUNDERS
            if hidden or node.name in RETIRED or is_overload(node):
                continue
            returned = shown(node.returns) if node.returns else ""
            if "property" in decorators(node):
                yield Member(node.name, False, returned, text=doc(node))
            else:
                bound = "staticmethod" not in decorators(node)
                yield Member(node.name, True, returned, signature(node, node.name, bound), text=doc(node))
        elif isinstance(node, ast.AnnAssign | ast.Assign):
            text = string_in(behind) or comments.get(node.end_lineno or 0, "")
            for name in targets(node):
                if not name.startswith("_") and name != "model_config":
                    annotation = shown(node.annotation) if isinstance(node, ast.AnnAssign) else ""
                    kind = re.sub(r"^ClassVar\[(.*)\]$", r"\1", annotation)
                    yield Member(name, False, kind, default=default_of(node.value), text=text)


def set_in(init: ast.FunctionDef | ast.AsyncFunctionDef, comments: Mapping[int, str]) -> Iterator[Member]:
    """The attributes that a constructor sets; one with the name of a parameter has its type."""
    types = {arg.arg: ast.unparse(arg.annotation) for arg in parameters(init) if arg.annotation}
    for node, behind in statements(init.body):
        for name in targets(node):
            public = re.fullmatch(r"self\.([a-z]\w*)", name)
            if public and isinstance(node, ast.AnnAssign | ast.Assign):
                annotation = shown(node.annotation) if isinstance(node, ast.AnnAssign) else ""
                text = string_in(behind) or comments.get(node.end_lineno or 0, "")
                yield Member(public[1], False, annotation or types.get(public[1], ""), text=text)


def parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.arg]:
    return [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]


def default_of(value: ast.expr | None) -> str:
    """A default as a reader needs it: `Field(0.95, ge=0, le=1)` is `0.95, ≥ 0, ≤ 1`."""
    if not isinstance(value, ast.Call) or ast.unparse(value.func) not in ("Field", "field"):
        return shown(value) if value and ast.unparse(value) != "..." else ""
    said = {keyword.arg: ast.unparse(keyword.value) for keyword in value.keywords}
    made = {"dict": "{}", "list": "[]", "tuple": "()"}
    first = shown(value.args[0]) if value.args else made.get(said.get("default_factory", ""), "")
    limits = [
        f"{sign} {said[key]}" for key, sign in (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤")) if key in said
    ]
    return ", ".join(filter(None, [first, *limits]))


def signature(node: ast.FunctionDef | ast.AsyncFunctionDef, name: str, bound: bool | None = None) -> str:
    """A signature on one line where it fits, else with a line for each parameter."""
    args = node.args
    positional = [*args.posonlyargs, *args.args]
    defaults = [None] * (len(positional) - len(args.defaults)) + list(args.defaults)
    each = [parameter(arg, default) for arg, default in zip(positional, defaults)]
    if bound or node.name == "__init__":
        each = each[1:]
    if args.vararg:
        each.append(f"*{parameter(args.vararg, None)}")
    named = [pair for pair in zip(args.kwonlyargs, args.kw_defaults) if pair[0].arg not in RETIRED]
    if named and not args.vararg:
        each.append("*")
    each += [parameter(arg, default) for arg, default in named]
    if args.kwarg:
        each.append(f"**{parameter(args.kwarg, None)}")
    prefix = "async " if isinstance(node, ast.AsyncFunctionDef) else ""
    returned = f" -> {shown(node.returns)}" if node.returns and node.name != "__init__" else ""
    line = f"{prefix}{name}({', '.join(each)}){returned}"
    if len(line) <= 100:
        return line
    return f"{prefix}{name}(\n" + "".join(f"    {one},\n" for one in each) + f"){returned}"


def parameter(arg: ast.arg, default: ast.expr | None) -> str:
    typed = f"{arg.arg}: {shown(arg.annotation)}" if arg.annotation else arg.arg
    if default is None:
        return typed
    return f"{typed} = {shown(default)}" if arg.annotation else f"{typed}={shown(default)}"


def public(module: str) -> list[str]:
    """A module's `__all__`."""
    for node in parsed(module)[0].body:
        if isinstance(node, ast.Assign) and targets(node) == ["__all__"]:
            return list(ast.literal_eval(node.value))
    return []


@cache
def homes() -> dict[str, str]:
    """Public name → the module that defines or re-exports it."""
    found: dict[str, str] = {}
    for package in PACKAGES:
        tree, _ = parsed(package)
        own = dict.fromkeys(public(package), package)
        for node in tree.body:
            if targets(node) == ["_HOMES"] and isinstance(node, ast.Assign):
                own |= {name: module for module, names in ast.literal_eval(node.value).items() for name in names}
        found |= own
    return found


@cache
def entries() -> dict[str, Entry]:
    """Everything on the page, by the name in SECTIONS, in its order."""
    found = {}
    for section in SECTIONS:
        for name in section.names:
            module, colon, attribute = name.partition(":")
            found[name] = entry(module, attribute) if colon else entry(homes()[name], name)
    return found


# ------------------------------------------------------------------------------------------------ what is missing


def missing() -> list[str]:
    """Public members without a sentence, and tensors without a shape: `module: Class.member: what is missing`."""
    seen = {(one.module, one.name): one for one in entries().values()}
    for room in ROOMS:
        for path in sorted(source_of(room).parent.glob("*.py")):
            module = f"{room}.{path.stem}"
            if path.stem != "__init__":
                for name in public(module):
                    one = entry(module, name)
                    seen.setdefault((one.module, one.name), one)
    found = []
    for one in seen.values():
        found += [f"{one.module}: {one.name}: {problem}" for problem in problems(one.text, one.type, one.name)]
        for member in one.members:
            said = problems(member.text, member.type, member.name)
            found += [f"{one.module}: {one.name}.{member.name}: {problem}" for problem in said]
    return found


def problems(text: str, kind: str, name: str) -> Iterator[str]:
    if not text:
        yield "no docstring"
        return
    if not re.search(r"[.:)`]$|[.:] ", text.split("\n\n")[0]):
        yield f"not a sentence: {text.splitlines()[0]!r}"
    has_shape = re.search(r"\[[^\]]*\]|\bshape\b", text) or re.search(r"_B[A-Z]?$", name)
    if re.search(r"\bTensor\b", kind) and not has_shape:
        yield "a tensor without its shape"


# ------------------------------------------------------------------------------------------------ writing Markdown


@dataclass
class Page:
    """Lines of Markdown, and the anchors that GitHub gives to their headings."""

    lines: list[str] = field(default_factory=list)
    taken: dict[str, int] = field(default_factory=dict)

    def add(self, *lines: str) -> None:
        self.lines += [*lines, ""]

    def heading(self, level: int, text: str) -> None:
        self.slug(text)
        self.add(f"{'#' * level} {text}")

    def slug(self, text: str) -> str:
        """As GitHub makes it: lower case, punctuation left out, a number behind what is there already."""
        plain = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        count = self.taken.get(plain, 0)
        self.taken[plain] = count + 1
        return f"{plain}-{count}" if count else plain

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        kept = [i for i, title in enumerate(head) if any(row[i] for row in rows)]
        lines = [[head[i] for i in kept], ["---"] * len(kept), *([cell(row[i]) for i in kept] for row in rows)]
        self.add(*(f"| {' | '.join(line)} |" for line in lines))

    def __str__(self) -> str:
        return "\n".join(self.lines).rstrip() + "\n"


def cell(text: str) -> str:
    """Text within a table: paragraphs become line breaks, bars are escaped."""
    paragraphs = [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]
    return "<br>".join(paragraphs).replace("|", "\\|")


def code(text: str) -> str:
    """As code, which may hold backticks."""
    return f"`` {text} ``" if "`" in text else f"`{text}`" if text else ""


@cache
def anchors() -> dict[str, str]:
    """`Batch`, `Batch.rows`, … → anchor; the headings are those that `api` writes, in its order. A field's is its class's."""
    page, found = Page(), {}
    page.slug("API")
    for section in SECTIONS:
        page.slug(section.title)
        for name in section.names:
            one = entries()[name]
            found[name] = found[one.name] = page.slug(one.name)
            for member in one.members:
                called = f"{one.name}.{member.name}"
                found[called] = page.slug(called) if member.is_call else found[name]
    return found


def linked(text: str, links: Mapping[str, str], own: str) -> str:
    """Names in backticks become links to their entries, but for the entry's own."""

    def link(match: re.Match[str]) -> str:
        name = re.sub(r"^hookline\.(kernels\.|testing\.)?", "", match[1])
        name = re.sub(r"^ctx\.", "Context.", re.sub(r"^mb\.", "MicroBatch.", name))
        sure = "." in match[1] or name[:1].isupper() or match[2]
        return f"[{match[0]}](#{links[name]})" if sure and name in links and name != own else match[0]

    parts = re.split(r"(^(?: {4,}.*\n?)+)", text, flags=re.MULTILINE)  # code blocks stay as they are
    return "".join(
        part if part.startswith("    ") else re.sub(r"(?<!\[)`([A-Za-z_][\w.]*)(\([^`]*\))?`", link, part)
        for part in parts
    )


def api() -> str:
    """docs/api.md."""
    links = anchors()
    page = Page()
    page.lines.append(EDITED)
    page.heading(1, "API")
    page.add(
        "Every public name of `hookline`, `hookline.kernels` and `hookline.testing`, made from the docstrings. How they are",
        "used: [a plugin in ten minutes](plugin-in-ten-minutes.md), [plugins](plugins.md). Options of the built-in",
        "components: [components](components.md).",
    )
    contents = []
    for section in SECTIONS:
        names = (f"[{entries()[name].name}](#{links[name]})" for name in section.names)
        contents.append((f"[{section.title}](#{Page().slug(section.title)})", ", ".join(names)))
    page.table(("section", "names"), contents)
    for section in SECTIONS:
        page.heading(2, section.title)
        page.add(linked(section.text, links, ""))
        for table in TABLES.get(section.title, ()):
            table(page, links)
        for name in section.names:
            write(page, entries()[name], links)
    return str(page)


def write(page: Page, one: Entry, links: Mapping[str, str]) -> None:
    page.heading(3, code(one.name))
    if not one.heading.startswith("class ") or "(" in one.heading:
        page.add("```python", one.heading, "```")
    ours = [base for base in one.bases if base in links and base != one.name]
    more = f" · a [{ours[0]}](#{links[ours[0]]}), with all that it has" if ours else ""
    page.add(f"<sub>[{one.path}](../{one.path}){more}</sub>")
    page.add(linked(one.text, links, one.name))
    rows = [
        (code(m.name), typed(m.type, links, one.name), code(m.default), linked(m.text, links, one.name))
        for m in one.members
        if not m.is_call
    ]
    if rows:
        page.table(("field", "type", "default", "meaning"), rows)
    for member in one.members:
        if member.is_call:
            page.heading(4, code(f"{one.name}.{member.name}"))
            page.add("```python", member.signature, "```")
            page.add(linked(member.text, links, one.name))


def typed(kind: str, links: Mapping[str, str], own: str) -> str:
    """A type as code, a link where it is a public name, or one that may be missing."""
    name = kind.removesuffix(" | None")
    return f"[{code(kind)}](#{links[name]})" if name in links and name != own and name[:1].isupper() else code(kind)


def kinds(page: Page, links: Mapping[str, str]) -> None:
    from hookline.contract.kinds import KINDS

    places = {"phase": "a phase", "experiment": "the experiment"}
    rows = []
    for kind in KINDS.values():
        bases = [base.rpartition(":")[2] for base in kind.base_names]
        where = "the config of another component" if kind.scope == "component" else kind.scope
        if kind.section:
            where = f"`{kind.section}:` of {places[kind.scope]}"
        hook = f"[`{kind.hook}`](#{links[spec(kind.hook)]})" if kind.hook else ""
        rows.append((f"`{kind.name}`", kind.means, where, ", ".join(f"[{b}](#{links[b]})" for b in bases), hook))
    page.add(
        "A kind is one row of [the table of kinds](../core/hookline/contract/kinds.py). A distribution offers a component "
        "by an entry point in the group `hookline.KIND`."
    )
    page.table(("kind", "what it does", "named in", "base class", "hook"), rows)


def spec(hook: str) -> str:
    return next(f"{one.name}.{hook}" for one in entries().values() for m in one.members if m.name == hook)


def figures(page: Page, links: Mapping[str, str]) -> None:
    from hookline.contract.metrics import CORE_METRICS

    page.add("Every phase logs these, where they apply; `*` stands for a name:")
    page.table(
        ("figure", "meaning", "unit", "joined by"),
        [(f"`{m.name}`", m.formula, m.unit, m.aggregate) for m in CORE_METRICS],
    )


TABLES = {"What a component can be": (kinds,), "Options and figures": (figures,)}

# ------------------------------------------------------------------------------------------------ built-in components


def components() -> str:
    """docs/components.md: every built-in component with its options, as `hookline plugins show NAME` prints them."""
    from hookline.cli.show import show_json
    from hookline.contract.fields import UpdateConfig
    from hookline.contract.kinds import KINDS
    from hookline.registry.offers import offers

    page = Page()
    page.lines.append(EDITED)
    page.heading(1, "Built-in components")
    page.add(
        "Every component that Hookline brings, by kind, with its options. `hookline plugins show NAME` prints the same and more",
        "about any installed component. How an experiment names one: [experiments.md](experiments.md). What each kind is:",
        "[api.md](api.md#what-a-component-can-be).",
    )
    built_in = [offer for offer in offers() if offer.built_in]
    by_kind = {kind: [offer for offer in built_in if offer.kind == kind] for kind in KINDS}
    page.table(
        ("kind", "components"),
        [
            (f"[{kind}](#{kind})", ", ".join(f"[{o.name}](#{kind}-{o.name})" for o in found))
            for kind, found in by_kind.items()
            if found
        ],
    )
    for kind, found in by_kind.items():
        if not found:
            continue
        page.heading(2, kind)
        page.add(f"Kind `{kind}`: {KINDS[kind].means}.")
        if kind == "update":
            page.add("Every update has these options; below, each has those that it adds, or whose default it changes:")
            page.table(OPTION, options(UpdateConfig))
        for offer in found:
            [shown] = [one for one in show_json(offer.name) if (one["kind"], one["target"]) == (kind, offer.target)]
            cls = offer.load()
            page.heading(3, f"{kind} {offer.name}")
            module = offer.target.partition(":")[0].replace(".", "/") + ".py"
            source = f"{'core' if module.startswith('hookline/') else 'plugins'}/{module}"
            page.add(f"<sub>[{source}](../{source})</sub>")
            page.add(shown["does"])
            for key in ("needs", "gives"):
                plain = inspect.getattr_static(
                    cls, key
                )  # a component that cannot be made without options still says it
                if said := shown[key] if isinstance(plain, property) else sorted(plain):
                    page.add(f"{key}: {said if isinstance(said, str) else ', '.join(map(code, said))}")
            shared = UpdateConfig.model_fields if issubclass(cls.Config, UpdateConfig) else {}
            rows = options(cls.Config, shared)
            if rows:
                page.table(OPTION, rows)
            plain = inspect.getattr_static(cls, "metrics")
            figures = shown["metrics"] if isinstance(plain, property) else {m.name: m.formula for m in plain}
            if figures:
                page.table(("figure", "meaning"), [(code(name), means) for name, means in figures.items()])
    return str(page)


OPTION = ("option", "type", "default", "meaning")


def options(
    config: type[BaseModel], shared: Mapping[str, FieldInfo] | None = None, within: str = ""
) -> list[Sequence[str]]:
    """A row per option; those of an option that is a model itself follow it, as `macro.kind`."""
    from hookline.contract.fields import kind_within

    rows: list[Sequence[str]] = []
    for name, field_ in config.model_fields.items():
        if shared and name in shared and shared[name].default == field_.default:
            continue
        called = within + (field_.alias or name)
        kind = kind_within(field_)
        default = "required" if field_.is_required() else code(str(field_.get_default(call_default_factory=True)))
        means = field_.description or ""
        rows.append(
            (code(called), f"a component: {kind}" if kind else code(type_name(field_.annotation)), default, means)
        )
        for inner in (*typing.get_args(field_.annotation), field_.annotation):
            if isinstance(inner, type) and issubclass(inner, BaseModel) and not kind:
                rows += options(inner, within=f"{called}.")
    return rows


def type_name(annotation: typing.Any) -> str:
    """A type without modules and bounds; the values of a Literal as they are written."""
    inner = typing.get_args(annotation)
    if hasattr(annotation, "__metadata__"):
        return type_name(inner[0])
    if typing.get_origin(annotation) is typing.Literal:
        return " | ".join(map(str, inner))
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return " | ".join(map(type_name, inner))
    if inner:
        return (
            f"{typing.get_origin(annotation).__name__}[{', '.join('…' if a is ... else type_name(a) for a in inner)}]"
        )
    return "None" if annotation is type(None) else getattr(annotation, "__name__", str(annotation))


PAGES = {"api.md": api, "components.md": components}


def main() -> int:
    """Write both pages, unless a public name has no sentence."""
    if found := missing():
        print("\n".join(["public names without a full docstring:", *found]), file=sys.stderr)
        return 1
    for name, make in PAGES.items():
        (ROOT / "docs" / name).write_text(make(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
