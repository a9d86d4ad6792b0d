"""`hookline collect`: the page on which people compare, rate, rank and correct."""

from __future__ import annotations

import hashlib
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

import hookline
from hookline import Argument, Command, DataError, ExperimentError, LocalPath, Out, ServiceError, Store
from hookline_plugins.sampling import AnswerOptions

EVERYBODY = 1_000_000
"""The overlap of known items, which every annotator is asked."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Collect(Command):
    """Open a page on which people judge answers: comparisons, ratings, rankings, corrections, thumbs and marked parts.

    With --chat, people talk with a model there and judge its replies as they come. The page is for this machine alone; it prints
    a link that lets you in once. Answers are on the disk before they are acknowledged. Other people come in by links that you make
    on the page "Team".
    """

    has_json = False

    class Config(AnswerOptions):
        only: ClassVar[str] = "--chat"

        experiment: Annotated[str, Argument("EXPERIMENT")] = ""
        """An experiment in which people judge: the page serves the store of its `feedback: {use: people, store: …}`."""
        store: str = ""
        """Without an experiment: where items and answers are kept, `sqlite:///answers.db`, `answers.jsonl`, or `postgresql://…`."""
        items: tuple[str, ...] = ()
        """Data with what is to be judged: rows with `prompt` and `candidates`, `chosen` and `rejected`, or `completion`. May be repeated;
        rows that are there already are not asked twice."""
        gold: tuple[str, ...] = ()
        """Rows whose right answer is known, in the column `expected`: everybody is asked them, without knowing which they are."""
        overlap: int = Field(1, ge=1)
        """How many annotators judge each item."""
        repeat_every: int = Field(0, ge=0)
        """After so many answers, ask an annotator an earlier item again, to see whether they say the same; 0: never."""
        ask: str | None = None
        """comparison, rating, ranking, correction, thumb or spans. Default: a rating of one answer, a comparison of two, a
        ranking of more."""
        axes: tuple[str, ...] = ()
        """Of a rating: what is marked, e.g. `helpful`. May be repeated."""
        scale: str = "1-5"
        """Of a rating: `1-5`, or `0-1` for a slider."""
        labels: tuple[str, ...] = ()
        """Of spans: what a part can be marked as. May be repeated."""
        strength: bool = False
        """Of a comparison: ask how much better the better answer is."""
        chat: tuple[str, ...] = Field((), max_length=2)
        """A run, RUN/phases/NAME, or a transformers folder with which people talk on the page, judging two replies at each turn.
        Given twice, each reply is from another model, and nobody sees which."""
        replies: int = Field(2, ge=1, le=2)
        """With --chat: the replies at each turn; 1: a single one, which is liked or not."""
        system: str = ""
        """With --chat: a system prompt."""
        guidelines: LocalPath | None = None
        """A Markdown file that annotators see; its hash is kept with every answer."""
        title: str = ""
        """What the page is called."""
        host: str = "127.0.0.1"
        """The address that is listened on. Addresses beyond this machine need --public."""
        port: int = Field(8765, ge=0, le=65535)
        """The port; 0: any free one."""
        public: tuple[str, ...] = ()
        """The names under which people reach the page from other machines, e.g. `labels.example.org`: it is then served
        only under these names. May be repeated. Behind a proxy: the whole address that browsers open, once, e.g.
        `https://label.example.org/team`; the proxy keeps the path and the name."""
        proxies: tuple[str, ...] = ()
        """Behind a proxy on another machine: its address or network, e.g. `10.0.0.2`, so that limits count people and not the
        proxy. Proxies on this machine are known. May be repeated."""
        certificate: LocalPath | None = None
        """A file with the TLS certificate and its chain (PEM)."""
        certificate_key: LocalPath | None = None
        """A file with the certificate's private key (PEM)."""
        people: LocalPath | None = None
        """The file with names, roles and hashes of links. Default: beside the store."""
        name: str = "me"
        """Under which name you answer, as coordinator."""

    def run(self, out: Out) -> int:
        try:
            import uvicorn

            from hookline_plugins.asking import question_by_options
            from hookline_plugins.page.access import People
            from hookline_plugins.page.address import Address
            from hookline_plugins.page.app import Page
            from hookline_plugins.page.desk import Desk
        except ImportError as err:
            raise ExperimentError(f"the page needs {err.name}", "pip install 'hookline[feedback]'") from None
        c = self.config
        behind = self._behind()
        self._check_reach()
        self._check_chat()
        asked = {"kind": c.ask, "axes": c.axes, "labels": c.labels, "strength": c.strength}
        question, guidelines = question_by_options(asked, c.scale), self._guidelines()
        url = self._url()
        with hookline.store(url) as store, ExitStack() as models:
            self._fill(store, url, question, out)
            people = People(Path(c.people) if c.people else _beside(url))
            digest = hashlib.sha256(guidelines.encode()).hexdigest()[:16] if guidelines else ""
            desk = Desk(store, people.secret("desk"), question, repeat_every=c.repeat_every, guidelines=digest)
            talks = self._talks(desk, models, out)
            listener = self._listen()
            port = listener.getsockname()[1]
            if behind:
                address, proxies = behind
                hosts: tuple[str, ...] = (address.host,)
            else:
                names = c.public or _names(c.host)
                hosts = tuple({name if port in (80, 443) else f"{_bracketed(name)}:{port}": None for name in names})
                address, proxies = Address("https" if c.certificate else "http", hosts[0], ""), None
            page = Page(
                desk, people, hosts, secure=address.scheme == "https", prefix=address.prefix, proxies=proxies,
                guidelines=guidelines, title=c.title, talks=talks,
            )  # fmt: skip
            token = people.invite(c.name, "coordinator")
            out.text(f"{address}/enter#{token}")
            out.text(
                "opens the page once, for you; invite others on its page Team. Stop with Ctrl+C: every answer is stored."
            )
            config = uvicorn.Config(
                page.app, log_level="critical", access_log=False, server_header=False, date_header=False, lifespan="off",
                timeout_keep_alive=20, limit_concurrency=512, h11_max_incomplete_event_size=16384, timeout_graceful_shutdown=5,
                ssl_certfile=c.certificate, ssl_keyfile=c.certificate_key, proxy_headers=False,
            )  # fmt: skip
            uvicorn.Server(config).run(sockets=[listener])
        return 0

    def _url(self) -> str:
        """The store that is served."""
        c = self.config
        if bool(c.experiment) == bool(c.store):
            raise ExperimentError(
                "name an experiment, or a store",
                "hookline collect EXPERIMENT; or hookline collect --items DATA --store STORE",
            )
        if c.store:
            return str(c.store)
        plan = hookline.explain(c.experiment)
        slots = [slot for phase in plan.phases for slot in phase.feedback]
        stores = [getattr(slot.config, "store", None) for slot in slots]
        found = list(dict.fromkeys(str(store) for store in stores if store))
        if len(found) != 1:
            said = f"asks people in {len(found)} stores: {', '.join(found)}" if found else "asks no people"
            raise ExperimentError(
                f"{c.experiment} {said}", "name the store: --store; a phase asks with feedback: {use: people, store: …}"
            )
        return found[0]

    def _behind(self) -> tuple[Any, Any] | None:
        """Where a proxy is in front of the page: the address that browsers open, and the proxies; else None."""
        from hookline_plugins.page.address import address_of, proxies_of

        c = self.config
        given = next((name for name in c.public if "/" in name), None)
        if given is None:
            if c.proxies:
                raise ExperimentError("--proxies needs the address behind which they are", "add --public https://NAME")
            return None
        if len(c.public) > 1:
            raise ExperimentError(
                f"--public {given} is a whole address, and there is another --public",
                "give one address, or names alone",
            )
        address = address_of(given)
        if address.scheme == "http" and c.certificate is not None:
            raise ExperimentError(f"--public {given} is without TLS, and there is a --certificate", "write https://")
        return address, proxies_of(c.proxies)

    def _check_reach(self) -> None:
        c = self.config
        if c.host not in LOOPBACK and not c.public:
            raise ExperimentError(
                f"--host {c.host} lets other machines reach the page",
                "say under which name they do: --public NAME; and give a --certificate",
            )
        if (c.certificate is None) != (c.certificate_key is None):
            raise ExperimentError("--certificate and --certificate-key belong together", "give both files")

    def _check_chat(self) -> None:
        c = self.config
        if not c.chat:
            c.check_idle("replies", "system")
        if len(set(c.chat)) < len(c.chat):
            raise ExperimentError(f"--chat names {c.chat[0]} twice", "name it once: both replies are from it then")
        if len(c.chat) == 2 and c.replies == 1:
            raise ExperimentError("two models need two replies", "leave out --replies, or name one model with --chat")
        alike = {"--temperature 0": c.temperature == 0, "--top-k 1": c.top_k == 1, "--min-p 1": c.min_p == 1}
        if len(c.chat) == 1 and c.replies == 2 and (always := [option for option, given in alike.items() if given]):
            raise ExperimentError(
                f"with {always[0]} both replies are the same",
                "set --replies 1, or draw from more than the likeliest token",
            )

    def _talks(self, desk: Any, models: ExitStack, out: Out) -> Any:
        """The conversations of the page; None without models. Each model is loaded into a process of its own."""
        from hookline_plugins.page.talks import Talks
        from hookline_plugins.page.writer import Writer

        c = self.config
        if not c.chat:
            return None
        options = c.drawing()
        writers = []
        for model in c.chat:
            writers.append(Writer(model, options))
            models.callback(writers[-1].close)
        for writer in writers:
            by = writer.ready()
            out.text(f"people talk with {by.name}, weights {by.weights}")
        if len({writer.by.name for writer in writers}) < len(writers):
            for writer in writers:
                writer.name = writer.model
        extra = {"guidelines": desk.guidelines} if desk.guidelines else {}
        return Talks(
            desk.store, desk.secret, writers, desk.question, desk.media, replies=c.replies, system=c.system, extra=extra
        )

    def _guidelines(self) -> str:
        path = self.config.guidelines
        if not path:
            return ""
        try:
            return Path(path).read_text(encoding="utf-8")
        except OSError as err:
            raise DataError(f"the guidelines {path} cannot be read: {err.strerror}", "name a text file") from None
        except UnicodeDecodeError as err:
            raise DataError.not_utf8(err, f"the guidelines {path}") from None

    def _fill(self, store: Store, url: str, question: Any, out: Out) -> None:
        from hookline_plugins.asking import asked_anew
        from hookline_plugins.page.items import items_of

        c, new = self.config, 0
        for name, known in (*((name, True) for name in c.gold), *((name, False) for name in c.items)):
            found = list(items_of(name, question.kind, overlap=EVERYBODY if known else c.overlap))
            for item in found:
                asked_anew(item, question)  # raises DataError for what cannot be asked
            if missing := next((item for item in found if known and item.expected is None), None):
                raise DataError(
                    f"--gold {name}: the item {missing.id} has no `expected`", "write the right answer there"
                )
            new += len(store.put(found))
        counts = store.counts()
        out.text(f"{url}: {counts.items} items ({new} new), {counts.complete} complete, {counts.events} events")

    def _listen(self) -> socket.socket:
        c = self.config
        made = socket.socket(socket.AF_INET6 if ":" in c.host else socket.AF_INET)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind((c.host, c.port))
            made.listen(512)
        except OSError as err:
            made.close()
            raise ServiceError(
                f"port {c.port} of {c.host} cannot be used: {err.strerror}", "choose another: --port 0 takes a free one"
            ) from None
        return made


def _names(host: str) -> tuple[str, ...]:
    """The names of this machine alone; a link with the first one."""
    return (host, "localhost") if host != "localhost" else ("localhost", "127.0.0.1")


def _bracketed(name: str) -> str:
    return f"[{name}]" if ":" in name else name


def _beside(store: str) -> Path:
    """Where the file of people is: beside the store's own file, or here for one on a server."""
    _, _, rest = store.partition(":///")
    path = Path(rest if rest else store if "://" not in store else "answers")
    return path.with_name(f"{path.name}.people.json")
